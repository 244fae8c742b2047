r"""JSON values: the parts a schema is made of, each with the pattern of what it accepts and a way to read it.

Whatever the pattern describes `read` accepts; the pattern is narrower: compact JSON with at most one space after `:`
and `,`, keys in the order of the schema, no `\u` escapes, and limits of its own where the schema has none, so that an
answer comes to an end.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.errors import ContentError
from engine.program.typed.grammar import (
    DIGIT,
    LINE,
    Either,
    Exactly,
    OneOf,
    Pattern,
    Repeat,
    Then,
    matches,
    optional,
    words,
)
from engine.program.typed.regex import without
from engine.tasks.taskfile import nearest
from engine.tasks.textfile import is_whole

_TEXT_CHARS = 200
_NAME_CHARS = 40
_ITEMS = 16
MAX_DIGITS = 16
_SPACE = optional(Exactly(" "))
_SIGN = optional(Exactly("-"))
_WHOLE = Either((Exactly("0"), Then((OneOf(((0x31, 0x39),)), Repeat(DIGIT, 0, MAX_DIGITS - 1)))))
_EXPONENT = Then((words("eE"), optional(words("+-")), Repeat(DIGIT, 1, 2)))
_ESCAPED = '\t\n"\\'
_PLAIN = OneOf(without(LINE.ranges, tuple((ord(character), ord(character)) for character in _ESCAPED)))
_CHARACTER = Either((_PLAIN, Then((Exactly("\\"), OneOf(tuple((ord(c), ord(c)) for c in '"\\bfnrt'))))))

_FRACTION = optional(Then((Exactly("."), Repeat(DIGIT, 1, MAX_DIGITS))))

INTEGER: Pattern = Then((_SIGN, _WHOLE))
NUMBER: Pattern = Then((_SIGN, _WHOLE, _FRACTION, optional(_EXPONENT)))


@dataclass(frozen=True, slots=True)
class Fixed:
    """One of these values, and nothing else: enum, const, boolean, null."""

    values: tuple[str | int | float | bool | None, ...]

    def pattern(self) -> Pattern:
        return words(dict.fromkeys(compact(value) for value in self.values))

    def read(self, value: Any, place: str = "") -> Any:
        """The value as the schema writes it."""
        for known in self.values:
            if isinstance(known, bool) == isinstance(value, bool) and known == value:
                return known
        return _refuse(f"one of {', '.join(compact(known) for known in self.values)}", value, place)


@dataclass(frozen=True, slots=True)
class String:
    """A text of `low` to `high` characters, or one that `form` describes."""

    low: int = 0
    high: int | None = None
    form: Pattern | None = None

    def pattern(self) -> Pattern:
        most = max(self.low, _TEXT_CHARS) if self.high is None else self.high
        inner = in_json(self.form) if self.form is not None else Repeat(_CHARACTER, self.low, most)
        return Then((Exactly('"'), *((inner,) if most else ()), Exactly('"')))

    def read(self, value: Any, place: str = "") -> str:
        """The text as it is."""
        if not isinstance(value, str) or not is_whole(value):
            _refuse("a text", value, place)
        if len(value) < self.low or (self.high is not None and len(value) > self.high):
            most = "" if self.high is None else f" and at most {self.high}"
            _refuse(f"a text of at least {self.low}{most} characters", value, place)
        if self.form is not None and not matches(self.form, value):
            _refuse("a text of the schema's pattern", value, place)
        return value


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within limits."""

    low: int | None = None
    high: int | None = None

    def pattern(self) -> Pattern:
        if self.low is None and self.high is None:
            return INTEGER
        most = 10**MAX_DIGITS - 1
        low = min(-most, self.high or 0) if self.low is None else self.low
        high = max(most, self.low or 0) if self.high is None else self.high
        options: list[Pattern] = []
        if low < 0:
            options.append(Then((Exactly("-"), _between(max(1, -high), -low))))
        if high >= 0:
            options.append(_between(max(0, low), high))
        return options[0] if len(options) == 1 else Either(tuple(options))

    def read(self, value: Any, place: str = "") -> int:
        """The number as it is."""
        if not isinstance(value, int) or isinstance(value, bool):
            _refuse("a whole number", value, place)
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            low, high = ("…" if limit is None else limit for limit in (self.low, self.high))
            _refuse(f"a whole number from {low} to {high}", value, place)
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within limits, between which there is a whole one.

    With a limit the pattern has no exponents and keeps to the whole numbers within the limits, and to fractions
    between two of them: of -0.5 to 2.5 it describes 0 to 2.
    """

    low: float | None = None
    high: float | None = None

    def pattern(self) -> Pattern:
        if self.low is None and self.high is None:
            return NUMBER
        most = 10**MAX_DIGITS - 1
        low = -most if self.low is None else math.ceil(self.low)
        high = most if self.high is None else math.floor(self.high)
        options: list[Pattern] = [_decimals(max(0, low), high)] if high >= 0 else []
        if low < 0:
            options.append(Then((Exactly("-"), _decimals(max(0, -high), -low))))
        return options[0] if len(options) == 1 else Either(tuple(options))

    def read(self, value: Any, place: str = "") -> float:
        """The number as a float, -0 as 0."""
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value) + 0.0
        except OverflowError:
            number = math.nan
        if not math.isfinite(number):
            _refuse("a number", value, place)
        if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
            low, high = ("…" if limit is None else limit for limit in (self.low, self.high))
            _refuse(f"a number from {low} to {high}", value, place)
        return number


@dataclass(frozen=True, slots=True)
class Array:
    """A list of `low` to `high` values of one part."""

    item: "Part"
    low: int = 0
    high: int | None = None

    def pattern(self) -> Pattern:
        most = max(self.low, _ITEMS) if self.high is None else self.high
        if most == 0:
            return Exactly("[]")
        item = self.item.pattern()
        rest = Repeat(Then((Exactly(","), _SPACE, item)), max(0, self.low - 1), most - 1)
        filled = Then((item, rest) if most > 1 else (item,))
        return Then((Exactly("["), filled if self.low else optional(filled), Exactly("]")))

    def read(self, value: Any, place: str = "") -> list[Any]:
        """The list with every value in its canonical form."""
        if not isinstance(value, list):
            _refuse("a list", value, place)
        if len(value) < self.low or (self.high is not None and len(value) > self.high):
            most = "" if self.high is None else f" and at most {self.high}"
            raise ContentError(f"{_at(place)}expected at least {self.low}{most} items, found {len(value)}")
        return [self.item.read(item, f"{place}[{index}]") for index, item in enumerate(value)]


@dataclass(frozen=True, slots=True)
class Object:
    """An object: name, part and whether it must be there, for each property in order. No others."""

    properties: tuple[tuple[str, "Part", bool], ...]

    def pattern(self) -> Pattern:
        written = [
            (Then((Exactly(f"{compact(name)}:"), _SPACE, part.pattern())), required)
            for name, part, required in self.properties
        ]
        after: list[Pattern] = []  # from the second property on: each with its comma
        for pair, required in written[1:]:
            listed = Then((Exactly(","), _SPACE, pair))
            after.append(listed if required else optional(listed))
        first: list[Pattern] = []  # one alternative for each property that can come first
        for index, (pair, required) in enumerate(written):
            first.append(Then((pair, *after[index:])))
            if required:
                return Then((Exactly("{"), Either(tuple(first)), Exactly("}")))
        return Then((Exactly("{"), optional(Either(tuple(first))), Exactly("}"))) if first else Exactly("{}")

    def read(self, value: Any, place: str = "") -> dict[str, Any]:
        """The object with its properties in the order of the schema."""
        if not isinstance(value, dict):
            _refuse("an object", value, place)
        names = [name for name, _, _ in self.properties]
        for name in value:
            if name not in names:
                raise ContentError(f"{_at(place)}unknown property {name!r}: {nearest(name, names)}")
        for name, _, required in self.properties:
            if required and name not in value:
                raise ContentError(f"{_at(place)}property {name!r} is missing")
        return {name: part.read(value[name], f"{place}.{name}") for name, part, _ in self.properties if name in value}


@dataclass(frozen=True, slots=True)
class Entries:
    """An object with any names, every value of one part."""

    value: "Part"

    def pattern(self) -> Pattern:
        pair = Then((String(1, _NAME_CHARS).pattern(), Exactly(":"), _SPACE, self.value.pattern()))
        rest = Repeat(Then((Exactly(","), _SPACE, pair)), 0, _ITEMS - 1)
        return Then((Exactly("{"), optional(Then((pair, rest))), Exactly("}")))

    def read(self, value: Any, place: str = "") -> dict[str, Any]:
        """The object with its names in the order they came in."""
        if not isinstance(value, dict):
            _refuse("an object", value, place)
        return {String().read(name, place): self.value.read(inner, f"{place}.{name}") for name, inner in value.items()}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value of the first of these parts that accepts it."""

    options: tuple["Part", ...]

    def pattern(self) -> Pattern:
        return Either(tuple(option.pattern() for option in self.options))

    def read(self, value: Any, place: str = "") -> Any:
        """The value as the first part that accepts it reads it."""
        for option in self.options:
            try:
                return option.read(value, place)
            except ContentError as error:
                refusal = error
        raise refusal


Part = Fixed | String | Integer | Number | Array | Object | Entries | AnyOf


def read_json(part: Part, text: str) -> Any:
    """The canonical value that a JSON text stands for.

    Raises:
        ContentError: it is no JSON, or not what `part` describes.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ContentError(f"expected JSON, found {shown(text)}") from None
    return part.read(value)


def compact(value: Any) -> str:
    """JSON without white space, in the characters it is about."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def in_json(pattern: Pattern) -> Pattern:
    """What a pattern of plain characters becomes inside the quotes of a JSON text."""
    match pattern:
        case Exactly(text):
            return Exactly(compact(text)[1:-1])
        case OneOf(ranges):
            plain = without(ranges, tuple((ord(character), ord(character)) for character in _ESCAPED))
            options: list[Pattern] = [OneOf(plain)] if plain else []
            options += [Exactly(compact(c)[1:-1]) for c in _ESCAPED if any(a <= ord(c) <= b for a, b in ranges)]
            return options[0] if len(options) == 1 else Either(tuple(options))
        case Then(parts):
            return Then(tuple(in_json(part) for part in parts))
        case Either(alternatives):
            return Either(tuple(in_json(option) for option in alternatives))
        case Repeat(item, low, high):
            return Repeat(in_json(item), low, high)


def _between(low: int, high: int) -> Pattern:
    """The numerals of 0 ≤ low ≤ n ≤ high, without leading zeros."""
    options: list[Pattern] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        options.append(_numerals(str(first), str(min(high, 10**digits - 1))))
    return options[0] if len(options) == 1 else Either(tuple(options))


def _decimals(low: int, high: int) -> Pattern:
    """The decimal numerals from 0 ≤ low to high; the last of them may only have zeros behind its point."""
    last = Then((_between(high, high), optional(Exactly(".0"))))
    return Either((Then((_between(low, high - 1), _FRACTION)), last)) if low < high else last


def _numerals(low: str, high: str) -> Pattern:
    """The numerals between two of equal length."""
    rest = len(low) - 1
    if rest < 0:
        return Exactly("")
    if low[0] == high[0]:
        return Then((Exactly(low[0]), _numerals(low[1:], high[1:])))
    options: list[Pattern] = []
    first, last = ord(low[0]), ord(high[0])
    if low[1:] != "0" * rest:
        options.append(Then((Exactly(low[0]), _numerals(low[1:], "9" * rest))))
        first += 1
    above = high[1:] != "9" * rest
    if first <= last - above:
        free = OneOf(((first, last - above),))
        options.append(Then((free, Repeat(DIGIT, rest, rest))) if rest else free)
    if above:
        options.append(Then((Exactly(high[0]), _numerals("0" * rest, high[1:]))))
    return options[0] if len(options) == 1 else Either(tuple(options))


def _refuse(expected: str, found: Any, place: str) -> NoReturn:
    raise ContentError(f"{_at(place)}expected {expected}, found {shown(found)}")


def _at(place: str) -> str:
    return f"{place.lstrip('.')}: " if place else ""


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
