"""Fields: what a layer writes, each with a type that says what may be written and how it is read.

    text     anything                     int, float, bool   a number, true or false
    choices  one of these texts           regex              a text of this form
    list     a JSON list of one type      schema             JSON of this schema

A node's output is text whatever its type: `canonical` checks what was written and gives the one way of writing that
value, and `pattern` is what a model decodes under. Whatever the pattern describes, `canonical` accepts.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import ContentError
from engine.program.typed.grammar import LINE, Pattern, Repeat, gbnf, matches, words
from engine.program.typed.json_schema import json_schema
from engine.program.typed.json_values import (
    INTEGER,
    NUMBER,
    Array,
    Fixed,
    Integer,
    Number,
    Part,
    String,
    compact,
    read_json,
    shown,
)
from engine.program.typed.regex import regex
from engine.tasks.taskfile import nearest
from engine.tasks.textfile import is_whole

_LINE_CHARS = 400
_MAX_DIGITS = 100
_INTEGER = re.compile(rf"[-+]?[0-9]{{1,{_MAX_DIGITS}}}")
_FLOAT = re.compile(rf"[-+]?([0-9]{{1,{_MAX_DIGITS}}}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{{1,4}})?")


class FieldType(Protocol):
    """How values of a field are written and read. Types are frozen, hashable and compared by what they say."""

    def pattern(self) -> Pattern:
        """What a model may write for it, on one line."""

    def canonical(self, written: str) -> str:
        """The one way of writing the value that was written.

        Raises:
            ContentError: it is no value of this type.
        """

    def goes_on(self, canonical: str) -> bool:
        """Whether a value could be the beginning of a longer one."""

    def to_mapping(self) -> Any:
        """As plain data, which `read_type` reads back."""


@dataclass(frozen=True, slots=True)
class TextType:
    """Any text. Under a grammar it is one line of bounded length, unless nothing follows it."""

    def pattern(self) -> Pattern:
        return Repeat(LINE, 1, _LINE_CHARS)

    def canonical(self, written: str) -> str:
        """Without white space around it."""
        return written.strip()

    def goes_on(self, canonical: str) -> bool:
        return True

    def to_mapping(self) -> Any:
        return "text"


@dataclass(frozen=True, slots=True)
class IntType:
    """A whole number: `42`."""

    def pattern(self) -> Pattern:
        return INTEGER

    def canonical(self, written: str) -> str:
        """Without a plus sign or leading zeros."""
        text = written.strip()
        if not _INTEGER.fullmatch(text):
            raise ContentError(f"expected a whole number, found {shown(text)}")
        return str(int(text))

    def goes_on(self, canonical: str) -> bool:
        return True

    def to_mapping(self) -> Any:
        return "int"


@dataclass(frozen=True, slots=True)
class FloatType:
    """A finite number: `2.5`."""

    def pattern(self) -> Pattern:
        return NUMBER

    def canonical(self, written: str) -> str:
        """As Python writes it, in the fewest digits; -0 as 0."""
        text = written.strip()
        number = float(text) + 0.0 if _FLOAT.fullmatch(text) else math.nan
        if not math.isfinite(number):
            raise ContentError(f"expected a number, found {shown(text)}")
        return repr(number)

    def goes_on(self, canonical: str) -> bool:
        return True

    def to_mapping(self) -> Any:
        return "float"


@dataclass(frozen=True, slots=True)
class BoolType:
    """`true` or `false`."""

    def pattern(self) -> Pattern:
        return words(("true", "false"))

    def canonical(self, written: str) -> str:
        """In lower case."""
        text = written.strip()
        if text.casefold() not in ("true", "false"):
            raise ContentError(f"expected true or false, found {shown(text)}")
        return text.casefold()

    def goes_on(self, canonical: str) -> bool:
        return False

    def to_mapping(self) -> Any:
        return "bool"


@dataclass(frozen=True, slots=True)
class ChoicesType:
    """One of several texts, generated; a layer's own `choices` are scored instead, which costs less and says more."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2 or not all(isinstance(option, str) for option in self.options):
            raise ContentError("choices: expected a list of at least two texts (quote yes, no, on, off and numbers)")
        for option in self.options:
            if not option or option != option.strip() or not matches(Repeat(LINE, 1), option):
                raise ContentError(f"choice {option!r}: expected a line of text without space around it")
            if self.options.count(option) > 1:
                raise ContentError(f"choice {option!r} stands twice")

    def pattern(self) -> Pattern:
        return words(self.options)

    def canonical(self, written: str) -> str:
        """The choice as it is listed."""
        text = written.strip()
        if text not in self.options:
            raise ContentError(f"expected one of {', '.join(self.options)}, found {shown(text)}")
        return text

    def goes_on(self, canonical: str) -> bool:
        return any(option != canonical and option.startswith(canonical) for option in self.options)

    def to_mapping(self) -> Any:
        return {"choices": list(self.options)}


@dataclass(frozen=True, slots=True)
class RegexType:
    """A text of one form, in the syntax of `regex`."""

    expression: str

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise ContentError(f"regex: expected text, found {shown(self.expression)}")
        self.pattern()

    def pattern(self) -> Pattern:
        return _regex(self.expression)

    def canonical(self, written: str) -> str:
        """As it is, or without the white space around it."""
        line = written.removesuffix("\n")
        for text in (line, line.removeprefix(" "), line.strip()):
            if matches(self.pattern(), text):
                return text
        raise ContentError(f"expected a text of the form {self.expression}, found {shown(written.strip())}")

    def goes_on(self, canonical: str) -> bool:
        return True

    def to_mapping(self) -> Any:
        return {"regex": self.expression}


@dataclass(frozen=True, slots=True)
class ListType:
    """A JSON list of texts, whole numbers, numbers, booleans or choices."""

    item: "TextType | IntType | FloatType | BoolType | ChoicesType"

    def pattern(self) -> Pattern:
        return self._part().pattern()

    def canonical(self, written: str) -> str:
        """Compact JSON."""
        return compact(read_json(self._part(), written.strip()))

    def goes_on(self, canonical: str) -> bool:
        return False

    def to_mapping(self) -> Any:
        return {"list": self.item.to_mapping()}

    def _part(self) -> Part:
        match self.item:
            case TextType():
                return Array(String())
            case IntType():
                return Array(Integer())
            case FloatType():
                return Array(Number())
            case BoolType():
                return Array(Fixed((True, False)))
            case ChoicesType(options):
                return Array(Fixed(options))


@dataclass(frozen=True, slots=True)
class SchemaType:
    """JSON of a schema, which is kept as JSON text: a mapping could be changed."""

    schema: str

    def __post_init__(self) -> None:
        _schema(self.schema)

    def pattern(self) -> Pattern:
        return _schema(self.schema).pattern()

    def canonical(self, written: str) -> str:
        """Compact JSON, properties in the order of the schema."""
        return compact(read_json(_schema(self.schema), written.strip()))

    def goes_on(self, canonical: str) -> bool:
        return canonical[-1:].isdigit()  # a number; all else ends with a mark or a word

    def to_mapping(self) -> Any:
        return {"schema": json.loads(self.schema)}


@dataclass(frozen=True, slots=True)
class Field:
    """A named output with its type."""

    name: str
    type: FieldType

    @property
    def is_text(self) -> bool:
        """Whether any text will do."""
        return isinstance(self.type, TextType)

    def canonical(self, value: Any) -> str:
        """The canonical text of a value, which may be written already or be plain data.

        Raises:
            ContentError: it is no value of the field's type.
        """
        try:
            return self.type.canonical(value if isinstance(value, str) else compact(value))
        except (TypeError, ValueError, RecursionError):
            raise ContentError(f"expected plain data, found {shown(value)}") from None


def as_fields(given: str | Sequence[str | Field] | Mapping[str, Any]) -> tuple[Field, ...]:
    """Fields from a name, from names (of text) or from types by name.

    Raises:
        ContentError: a type cannot be read; `path` starts with the field's name.
    """
    if not isinstance(given, Mapping):
        listed = (given,) if isinstance(given, str) else given
        return tuple(item if isinstance(item, Field) else Field(item, TextType()) for item in listed)
    fields = []
    for name, spec in given.items():
        try:
            fields.append(Field(name, read_type(spec)))
        except ContentError as error:
            raise ContentError(f"{name}: {error}", (name, *error.path)) from None
    return tuple(fields)


def to_plain(fields: Sequence[Field]) -> Any:
    """Fields as plain data: their names, with their types where one is not text."""
    if all(field.is_text for field in fields):
        return [field.name for field in fields]
    return {field.name: field.type.to_mapping() for field in fields}


def read_type(spec: Any) -> FieldType:
    """A type from plain data: its name, or a mapping of its name to what it needs.

    Raises:
        ContentError: there is no such type, or it cannot be made; `path` leads to the place.
    """
    if isinstance(spec, str):
        if spec in _PLAIN:
            return _PLAIN[spec]()
        if spec in _MADE:
            raise ContentError(f"type {spec} needs more: {{{spec}: …}}")
        raise ContentError(f"unknown type {spec!r}: {nearest(spec, [*_PLAIN, *_MADE])}")
    if not isinstance(spec, Mapping) or len(spec) != 1:
        known = ", ".join([*_PLAIN, *_MADE])
        raise ContentError(f"expected a type (one of {known}), found {shown(spec)}")
    ((name, setting),) = spec.items()
    if name not in _MADE:
        raise ContentError(f"unknown type {name!r}: {nearest(str(name), [*_MADE, *_PLAIN])}", (str(name),))
    try:
        return _MADE[name](setting)
    except ContentError as error:
        raise ContentError(str(error), (name, *error.path)) from None


def _choices(setting: Any) -> FieldType:
    if not isinstance(setting, list | tuple):
        raise ContentError(f"choices: expected a list of texts, found {shown(setting)}")
    return ChoicesType(tuple(setting))


def _list(setting: Any) -> FieldType:
    item = read_type(setting)
    if not isinstance(item, TextType | IntType | FloatType | BoolType | ChoicesType):
        raise ContentError("list: expected text, int, float, bool or choices; use schema for what is nested")
    return ListType(item)


def _schema_type(setting: Any) -> FieldType:
    try:
        text = compact(setting)
        plain = is_whole(text) and json.loads(text) == setting
    except (TypeError, ValueError, RecursionError):
        plain = False
    if not plain:
        raise ContentError(
            "schema: expected plain JSON data: mappings with texts as keys, lists, texts, finite numbers"
        )
    return SchemaType(text)


_PLAIN: dict[str, Callable[[], FieldType]] = {"text": TextType, "int": IntType, "float": FloatType, "bool": BoolType}
_MADE: dict[str, Callable[[Any], FieldType]] = {
    "choices": _choices,
    "regex": RegexType,
    "list": _list,
    "schema": _schema_type,
}
_regex = functools.lru_cache(maxsize=256)(regex)


@functools.lru_cache(maxsize=256)
def _schema(text: str) -> Part:
    part = json_schema(json.loads(text))
    gbnf(part.pattern())
    return part
