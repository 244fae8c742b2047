r"""Regular expressions: the part of Python's syntax that a grammar can follow, read into a pattern.

    characters   abc  .  \.  \t  [a-z0-9_]  [^,;]  \d \w \s \D \W \S    (ASCII; a negated set stays on the line)
    groups       (a|b)  (?:a|b)
    repetition   ?  *  +  {3}  {2,}  {2,5}

An expression describes the whole text, as `re.fullmatch` does; a `^` at its start and a `$` at its end change nothing.
"""

import re
from typing import NoReturn

from engine.errors import ContentError
from engine.program.typed.grammar import (
    LINE,
    MAX_REPETITIONS,
    Either,
    Exactly,
    OneOf,
    Pattern,
    Repeat,
    Then,
    written_out,
)

_MAX_DEPTH = 20
_SETS = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x09, 0x09), (0x20, 0x20)),
}
_QUANTIFIER = re.compile(r"[?*+]|\{([0-9]*)(,?)([0-9]*)\}")
_LIMITS: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}

Ranges = tuple[tuple[int, int], ...]


def regex(expression: str) -> Pattern:
    """The pattern of an expression.

    Raises:
        ContentError: it uses what is not supported, can match nothing, or is too large.
    """
    pattern = _Reader(expression).whole()
    size = written_out(pattern)
    if size > MAX_REPETITIONS:
        raise ContentError(
            f"regex {expression!r}: {size:,} characters, its nested repetitions written out; at most "
            f"{MAX_REPETITIONS:,} here"
        )
    return pattern


class _Reader:
    """Reads from left to right, one method for each level of the syntax."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._at = 0

    def whole(self) -> Pattern:
        self._take("^")
        pattern = self._either(0)
        if self._text[self._at :] == "$":
            return pattern
        if self._at < len(self._text):
            self._refuse("a ) without its (" if self._peek() == ")" else f"{self._peek()} in the middle")
        return pattern

    def _either(self, depth: int) -> Pattern:
        if depth > _MAX_DEPTH:
            self._refuse(f"groups nested deeper than {_MAX_DEPTH}")
        options = [self._then(depth)]
        while self._take("|"):
            options.append(self._then(depth))
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _then(self, depth: int) -> Pattern:
        parts: list[Pattern] = []
        while self._peek() not in ("", "|", ")", "$"):
            part = self._repeated(self._atom(depth))
            last = parts[-1] if parts else None
            if isinstance(part, Exactly) and isinstance(last, Exactly):
                parts[-1] = Exactly(last.text + part.text)
            else:
                parts.append(part)
        if not parts:
            self._refuse("an empty alternative: write (…)? for what may be absent")
        return parts[0] if len(parts) == 1 else Then(tuple(parts))

    def _atom(self, depth: int) -> Pattern:
        character = self._next()
        match character:
            case "(":
                if self._take("?") and not self._take(":"):
                    self._refuse("a group that begins with (? but not (?:")
                pattern = self._either(depth + 1)
                if not self._take(")"):
                    self._refuse("a ( without its )")
                return pattern
            case "[":
                return self._set()
            case ".":
                return LINE
            case "\\":
                return self._one_of(self._escaped())
            case "*" | "+" | "?" | "{":
                self._refuse(f"{character} with nothing before it; write \\{character} for the character")
            case "^":
                self._refuse("^ in the middle")
        return Exactly(self._on_the_line(character))

    def _repeated(self, item: Pattern) -> Pattern:
        found = _QUANTIFIER.match(self._text, self._at)
        if found is None:
            if self._peek() == "{":
                self._refuse("a { that is no {n}, {n,} or {m,n}; write \\{ for the character")
            return item
        self._at = found.end()
        if self._peek() and self._peek() in "?*+{":
            self._refuse(f"{found[0]}{self._peek()}: one quantifier after the other")
        if found[0] in _LIMITS:
            low, high = _LIMITS[found[0]]
        else:
            least, comma, most = found.groups()
            if not least and not most:
                self._refuse(f"{found[0]} without a number")
            low = _number(least or "0")
            high = _number(most) if most else None if comma else low
        if high == 0:
            self._refuse(f"{found[0]}, which leaves nothing")
        try:
            return Repeat(item, low, high)
        except ContentError as error:
            self._refuse(str(error))

    def _set(self) -> Pattern:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not ranges or not self._take("]"):
            low = self._member()
            following = self._text[self._at : self._at + 2]
            if _is_one(low) and following.startswith("-") and following not in ("-", "-]"):
                self._at += 1
                high = self._member()
                if not _is_one(high) or high < low:
                    self._refuse("a range in [] whose end does not follow its start")
                low = ((low[0][0], high[0][1]),)
            ranges += low
        return self._one_of(without(LINE.ranges, tuple(ranges)) if negated else tuple(ranges))

    def _member(self) -> Ranges:
        character = self._next()
        if not character:
            self._refuse("a [ without its ]")
        if character == "\\":
            return self._escaped()
        point = ord(self._on_the_line(character))
        return ((point, point),)

    def _escaped(self) -> Ranges:
        character = self._next()
        if character.lower() in _SETS:
            ranges = _SETS[character.lower()]
            return ranges if character.islower() else without(LINE.ranges, ranges)
        if character == "t":
            return ((0x09, 0x09),)
        if character == "n":
            self._refuse("\\n: a value stands on one line")
        if not character or character.isalnum():
            self._refuse(f"\\{character}, which is not supported here")
        point = ord(self._on_the_line(character))
        return ((point, point),)

    def _one_of(self, ranges: Ranges) -> Pattern:
        merged = without(((0x09, 0x09), *LINE.ranges), without(((0x09, 0x09), *LINE.ranges), ranges))
        if not merged:
            self._refuse("a set of characters that holds none")
        (low, high), *others = merged
        return Exactly(chr(low)) if low == high and not others else OneOf(merged)

    def _on_the_line(self, character: str) -> str:
        point = ord(character)
        if not any(low <= point <= high for low, high in LINE.ranges):
            self._refuse(f"the character U+{point:04X}, which has no place on a line")
        return character

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _take(self, character: str) -> bool:
        taken = self._peek() == character
        self._at += taken
        return taken

    def _refuse(self, what: str) -> NoReturn:
        raise ContentError(f"regex {self._text!r}: {what}") from None


def without(whole: Ranges, taken: Ranges) -> Ranges:
    """Ranges of `whole` less those `taken`, in order and apart."""
    left = list(whole)
    for low, high in taken:
        pieces = [piece for a, b in left for piece in ((a, min(b, low - 1)), (max(a, high + 1), b))]
        left = [(a, b) for a, b in pieces if a <= b]
    return tuple(left)


def _is_one(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def _number(digits: str) -> int:
    return int(digits[:9])  # longer ones are too large in any case
