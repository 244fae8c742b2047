"""Grammars: patterns of text, written as GBNF for llama.cpp to decode under, and matched here without it.

A pattern is plain data. `gbnf` writes it out and refuses what llama.cpp would refuse, abort on or be slow with, so that
a bad grammar is an error of the program that holds it and not of a run. Knows nothing of fields, prompts or models.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.errors import ContentError

MAX_REPETITIONS = 2000  # llama.cpp reads a larger {m,n} as no limit, or refuses it
MAX_ELEMENTS = 20_000  # about what llama.cpp compiles in 10 ms, which every request pays once

_LONGEST = 24  # what has more elements becomes a rule of its own, written once


@dataclass(frozen=True, slots=True)
class Exactly:
    """This text."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character out of these ranges of code points, both ends included."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Then:
    """One after another."""

    parts: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several."""

    options: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same `low` to `high` times; without end where `high` is None.

    Raises:
        ContentError: limits that are the wrong way round or too high, or an item that may be empty.
    """

    item: "Pattern"
    low: int = 0
    high: int | None = None

    def __post_init__(self) -> None:
        most = self.low if self.high is None else self.high
        if not 0 <= self.low <= most:
            raise ContentError(f"a repetition of {self.low} to {most} times: the smaller number comes first")
        if most > MAX_REPETITIONS:
            raise ContentError(f"a repetition of up to {most:,} times: at most {MAX_REPETITIONS:,} here")
        if (self.high is None or self.high > 1) and can_be_empty(self.item):
            raise ContentError("a repetition of what may itself be empty, which has no end: let it hold something")


Pattern = Exactly | OneOf | Then | Either | Repeat

# Characters of one line: no control characters, no halves of surrogate pairs.
LINE = OneOf(((0x20, 0x7E), (0xA0, 0xD7FF), (0xE000, 0x10FFFF)))
LINES = OneOf(((0x09, 0x0A), *LINE.ranges))
DIGIT = OneOf(((0x30, 0x39),))


def optional(pattern: Pattern) -> Pattern:
    """The pattern or nothing."""
    return Repeat(pattern, 0, 1)


def words(texts: Iterable[str]) -> Pattern:
    """Exactly one of these texts."""
    options = tuple(Exactly(text) for text in texts)
    return options[0] if len(options) == 1 else Either(options)


def prose(most_chars: int, openings: Iterable[str] = (), before: str = "") -> str:
    """GBNF of a sentence or a few on one line, of at most about `most_chars` characters; `before` comes before it.

    It begins with a capital letter, or with one of the words `openings` and a lower-case one where there are some.
    """
    first = " | ".join(f'"{"".join(map(_in_quotes, word))} "' for word in openings)
    begun = f"({first}) [a-z]" if first else "[A-Z]"
    begun = f'"{before}" {begun}' if before else begun
    return rf'root ::= {begun} [^\n\x00-\x1f]{{10,{most_chars}}} [.] "\n"?'


def gbnf(pattern: Pattern) -> str:
    """The pattern as GBNF with the start symbol `root`.

    Raises:
        ContentError: it is larger than `MAX_ELEMENTS`, its repetitions written out.
    """
    writer = _Writer()
    root = writer.body(pattern)
    if writer.elements + root.elements > MAX_ELEMENTS:
        raise ContentError(
            f"a grammar of {writer.elements + root.elements:,} elements, its repetitions written out; at most "
            f"{MAX_ELEMENTS:,} here: lower its limits or split the node"
        )
    return "\n".join([f"root ::= {root.text}", *(f"{name} ::= {body}" for body, name in writer.rules.items())])


def matches(pattern: Pattern, text: str) -> bool:
    """Whether the whole text is one that the pattern describes. Never slower than text × pattern × repetitions."""
    return len(text) in _ends(pattern, text, {0})


def can_be_empty(pattern: Pattern) -> bool:
    """Whether the pattern describes the empty text too."""
    match pattern:
        case Exactly(text):
            return not text
        case OneOf():
            return False
        case Then(parts):
            return all(can_be_empty(part) for part in parts)
        case Either(options):
            return any(can_be_empty(option) for option in options)
        case Repeat(item, low, _):
            return low == 0 or can_be_empty(item)


def written_out(pattern: Pattern) -> int:
    """How many characters the pattern takes, every repetition written out: how far nested repetitions multiply."""
    match pattern:
        case Exactly(text):
            return len(text)
        case OneOf():
            return 1
        case Then(parts) | Either(parts):
            return sum(written_out(part) for part in parts)
        case Repeat(item, low, high):
            return written_out(item) * max(1, low if high is None else high)


def shortest(pattern: Pattern) -> str:
    """A text that the pattern describes, none of them shorter."""
    match pattern:
        case Exactly(text):
            return text
        case OneOf(ranges):
            return chr(ranges[0][0])
        case Then(parts):
            return "".join(map(shortest, parts))
        case Either(options):
            return min(map(shortest, options), key=len)
        case Repeat(item, low, _):
            return shortest(item) * low


def longest(pattern: Pattern) -> int | None:
    """The characters of the longest text that the pattern describes; None where there is none."""
    match pattern:
        case Exactly(text):
            return len(text)
        case OneOf():
            return 1
        case Then(parts):
            sizes = [longest(part) for part in parts]
            return None if None in sizes else sum(size or 0 for size in sizes)
        case Either(options):
            sizes = [longest(option) for option in options]
            return None if None in sizes else max(size or 0 for size in sizes)
        case Repeat(item, _, high):
            size = longest(item)
            return None if size is None or high is None else size * high


def _ends(pattern: Pattern, text: str, starts: set[int]) -> set[int]:
    """Where a match that begins at one of `starts` can end."""
    match pattern:
        case Exactly(word):
            return {start + len(word) for start in starts if text.startswith(word, start)}
        case OneOf(ranges):
            return {s + 1 for s in starts if s < len(text) and any(a <= ord(text[s]) <= b for a, b in ranges)}
        case Then(parts):
            for part in parts:
                starts = _ends(part, text, starts)
            return starts
        case Either(options):
            return set().union(*(_ends(option, text, starts) for option in options))
        case Repeat(item, low, high):
            for _ in range(low):
                starts = _ends(item, text, starts)
            found, count = set(starts), low
            while starts and (high is None or count < high):
                starts = _ends(item, text, starts) - found  # reached before means reached with more left to go
                found |= starts
                count += 1
            return found


@dataclass(frozen=True, slots=True)
class _Written:
    """GBNF of a pattern; `atom` where a quantifier may follow it as it stands."""

    text: str
    elements: int
    atom: bool = False


class _Writer:
    """Writes patterns and gathers the rules they share, by body. `elements` counts what stands in those rules."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self.elements = 0
        self._seen: dict[int, _Written] = {}  # by identity: parts of a schema stand in several places

    def write(self, pattern: Pattern) -> _Written:
        """The pattern in its place: as it stands, or the name of its rule."""
        if id(pattern) not in self._seen:
            written = self.body(pattern)
            long = written.elements > _LONGEST and not isinstance(pattern, Exactly | OneOf)
            self._seen[id(pattern)] = self._named(written) if long else written
        return self._seen[id(pattern)]

    def body(self, pattern: Pattern) -> _Written:
        """The pattern as it stands."""
        match pattern:
            case Exactly(text):
                return _Written('"' + "".join(map(_in_quotes, text)) + '"', len(text), atom=len(text) == 1)
            case OneOf(ranges):
                return _Written(f"[{''.join(map(_in_brackets, ranges))}]", 2 * len(ranges), atom=True)
            case Then(parts):
                written = [self._between_others(part) for part in parts if part != Exactly("")]
                return _Written(" ".join(part.text for part in written), sum(part.elements for part in written))
            case Either(options):
                written = [self.write(option) for option in options]
                total = sum(option.elements + 1 for option in written)
                return _Written(" | ".join(option.text for option in written), total)
            case Repeat(item, low, high):
                return self._repeat(item, low, high)

    def _between_others(self, pattern: Pattern) -> _Written:
        """In parentheses where its neighbours would become part of an alternative."""
        while isinstance(pattern, Either) and len(pattern.options) == 1:
            pattern = pattern.options[0]
        written = self.write(pattern)
        if isinstance(pattern, Either) and not written.atom:
            return _Written(f"({written.text})", written.elements + 1)
        return written

    def _repeat(self, item: Pattern, low: int, high: int | None) -> _Written:
        inner = self.write(item)
        # llama.cpp multiplies a repetition with the rules inside its parentheses, but not behind a name.
        repeated = inner if inner.atom else self._named(inner)
        most = low + 1 if high is None else high
        quantifier = {(0, None): "*", (1, None): "+", (0, 1): "?", (low, low): f"{{{low}}}"}.get((low, high))
        if quantifier is None:
            quantifier = f"{{{low},{'' if high is None else high}}}"
        return _Written(repeated.text + quantifier, most * (repeated.elements + 1))

    def _named(self, written: _Written) -> _Written:
        """A reference to a rule with this body."""
        if written.text not in self.rules:
            self.rules[written.text] = f"r{len(self.rules) + 1}"
            self.elements += written.elements
        return _Written(self.rules[written.text], 1, atom=True)


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def _in_quotes(character: str) -> str:
    return _ESCAPES.get(character) or (character if character.isprintable() else _by_number(ord(character)))


def _in_brackets(bounds: tuple[int, int]) -> str:
    low, high = (chr(point) if chr(point).isascii() and chr(point).isalnum() else _by_number(point) for point in bounds)
    return low if low == high else f"{low}-{high}"


def _by_number(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
