"""JSON Schema: the part of it that a grammar can follow, read once into parts.

    object    properties, required, additionalProperties: false (meant even where it is not written), or in place of
              properties the schema of every value
    array     items, minItems, maxItems
    string    minLength, maxLength, or pattern: ^…$
    integer   minimum, maximum                number    minimum, maximum, a whole number between them
    boolean, null
    enum, const (of texts, numbers, true, false, null), anyOf, oneOf (read as anyOf), $ref to #/$defs without circles

llama-cpp-python has a converter too. Importing it loads llama.cpp, it skips keywords it does not know without a word,
and its numbers and white space have no end.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ContentError
from engine.program.typed.grammar import DIGIT, Repeat
from engine.program.typed.json_values import (
    MAX_DIGITS,
    AnyOf,
    Array,
    Entries,
    Fixed,
    Integer,
    Number,
    Object,
    Part,
    String,
    compact,
    shown,
)
from engine.program.typed.regex import regex
from engine.tasks.taskfile import nearest
from engine.tasks.textfile import is_whole

Path = tuple[str | int, ...]

MAX_DEPTH = 24
_MAX_PARTS = 500
_NOTES = ("title", "description", "default", "examples", "$comment", "$schema", "$defs")
KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "boolean": (),
    "null": (),
}
_OF_TYPE: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def json_schema(schema: Any) -> Part:
    """Read a schema.

    Raises:
        ContentError: a keyword or a form that is not supported, or a schema that is too large; `path` leads to it.
    """
    return _Reader(schema).part(schema, (), ())


class _Reader:
    """Reads one schema. Every reference is written out, so parts are counted."""

    def __init__(self, schema: Any) -> None:
        definitions = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
        if not isinstance(definitions, Mapping):
            raise ContentError("$defs: expected a mapping of schemas", ("$defs",))
        self._definitions: Mapping[str, Any] = definitions
        self._parts = self._depth = 0

    def part(self, schema: Any, path: Path, within: tuple[str, ...]) -> Part:
        """One schema at its place; `within` are the definitions it is part of."""
        self._parts += 1
        self._depth += 1
        if self._parts > _MAX_PARTS:
            raise ContentError(f"a schema of more than {_MAX_PARTS} parts, its $refs written out", path)
        if self._depth > MAX_DEPTH:
            raise ContentError(f"a schema nested deeper than {MAX_DEPTH}", path)
        part = self._read(schema, path, within)
        self._depth -= 1
        return part

    def _read(self, schema: Any, path: Path, within: tuple[str, ...]) -> Part:
        if not isinstance(schema, Mapping):
            raise ContentError(f"expected a schema (a mapping with a type), found {shown(schema)}", path)
        if "$ref" in schema:
            _check_keywords(schema, ("$ref",), "$ref", path)
            return self._reference(schema["$ref"], path, within)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                _check_keywords(schema, (union,), union, path)
                options = _listed(schema[union], (*path, union))
                return AnyOf(tuple(self.part(option, (*path, union, i), within) for i, option in enumerate(options)))
        kind = schema.get("type")
        if "enum" in schema or "const" in schema:
            return _fixed(schema, kind, path)
        if not isinstance(kind, str) or kind not in KEYWORDS:
            known = nearest(kind, list(KEYWORDS)) if isinstance(kind, str) else f"one of {', '.join(KEYWORDS)}"
            found = f"unknown type {kind!r}" if "type" in schema else "a schema without a type"
            raise ContentError(f"{found}: {known}", (*path, "type") if "type" in schema else path)
        _check_keywords(schema, ("type", *KEYWORDS[kind]), kind, path)
        match kind:
            case "object":
                return self._object(schema, path, within)
            case "array":
                if "items" not in schema:
                    raise ContentError("an array needs items: the schema of each", path)
                item = self.part(schema["items"], (*path, "items"), within)
                return Array(item, *_limits(schema, "minItems", "maxItems", path))
            case "string":
                return _string(schema, path)
            case "integer":
                low, high = (_whole(schema, name, path) for name in ("minimum", "maximum"))
                _check_order(low, high, path)
                return Integer(low, high)
            case "number":
                return _number(schema, path)
            case "boolean":
                return Fixed((True, False))
        return Fixed((None,))

    def _object(self, schema: Mapping[str, Any], path: Path, within: tuple[str, ...]) -> Part:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", False)
        if isinstance(others, Mapping) and not properties and not required:
            return Entries(self.part(others, (*path, "additionalProperties"), within))
        if others is not False:
            raise ContentError(
                "additionalProperties: only false is supported, or a schema where there are no properties",
                (*path, "additionalProperties"),
            )
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
            raise ContentError("properties: expected a mapping of schemas by name", (*path, "properties"))
        if not isinstance(required, list):
            raise ContentError(f"required: expected a list of names, found {shown(required)}", (*path, "required"))
        for name in required:
            if name not in properties:
                known = nearest(str(name), list(properties))
                raise ContentError(f"required names {name!r}, which is no property: {known}", (*path, "required"))
        return Object(
            tuple(
                (name, self.part(inner, (*path, "properties", name), within), name in required)
                for name, inner in properties.items()
            )
        )

    def _reference(self, target: Any, path: Path, within: tuple[str, ...]) -> Part:
        name = target.removeprefix("#/$defs/") if isinstance(target, str) and target.startswith("#/$defs/") else None
        if name is None or name not in self._definitions:
            known = ", ".join(f"#/$defs/{name}" for name in self._definitions) or "none, there are no $defs"
            raise ContentError(f"$ref {target!r} leads nowhere: known here: {known}", (*path, "$ref"))
        if name in within:
            raise ContentError(f"$ref {target!r} is part of itself: a grammar needs an end", (*path, "$ref"))
        return self.part(self._definitions[name], ("$defs", name), (*within, name))


def _fixed(schema: Mapping[str, Any], kind: Any, path: Path) -> Part:
    keyword = "enum" if "enum" in schema else "const"
    _check_keywords(schema, ("type", keyword), keyword, path)
    values = _listed(schema["enum"], (*path, "enum")) if keyword == "enum" else [schema["const"]]
    for value in values:
        if isinstance(value, Mapping | list) or (isinstance(value, str) and not is_whole(value)):
            raise ContentError(f"{keyword}: expected texts, numbers, true, false or null", (*path, keyword))
        known = _OF_TYPE.get(kind, (object,)) if isinstance(kind, str) else (object,)
        if not isinstance(value, known) or (isinstance(value, bool) and kind in ("integer", "number")):
            raise ContentError(f"{keyword}: {compact(value)} is no {kind}", (*path, keyword))
    return Fixed(tuple(values))


def _number(schema: Mapping[str, Any], path: Path) -> Part:
    limits = []
    for name in ("minimum", "maximum"):
        value = schema.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 10**MAX_DIGITS
        ):
            raise ContentError(
                f"{name}: expected a number of at most {MAX_DIGITS} digits, found {shown(value)}", (*path, name)
            )
        limits.append(value)
    low, high = limits
    _check_order(low, high, path)
    if low is not None and high is not None and math.ceil(low) > math.floor(high):
        raise ContentError("minimum and maximum: a grammar needs a whole number between them", (*path, "minimum"))
    return Number(low, high)


def _check_order(low: float | None, high: float | None, path: Path) -> None:
    if low is not None and high is not None and low > high:
        raise ContentError("minimum is larger than maximum", (*path, "minimum"))


def _string(schema: Mapping[str, Any], path: Path) -> Part:
    if "pattern" not in schema:
        return String(*_limits(schema, "minLength", "maxLength", path))
    place = (*path, "pattern")
    form = schema["pattern"]
    if "minLength" in schema or "maxLength" in schema:
        raise ContentError("pattern together with minLength or maxLength: write the length into the pattern", place)
    if not isinstance(form, str) or not form.startswith("^") or not form.endswith("$"):
        raise ContentError(f"pattern: expected ^…$ around an expression, found {shown(form)}", place)
    try:
        return String(form=regex(form))
    except ContentError as error:
        raise ContentError(str(error), place) from None


def _limits(schema: Mapping[str, Any], least: str, most: str, path: Path) -> tuple[int, int | None]:
    low, high = (_whole(schema, name, path) for name in (least, most))
    if (low is not None and low < 0) or (high is not None and high < (low or 0)):
        raise ContentError(f"{least} and {most}: expected 0 or more, the smaller one first", (*path, most))
    try:
        Repeat(DIGIT, low or 0, high)
    except ContentError as error:
        raise ContentError(f"{most if high else least}: {error}", (*path, most if high else least)) from None
    return low or 0, high


def _whole(schema: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = schema.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**MAX_DIGITS):
        raise ContentError(
            f"{name}: expected a whole number of at most {MAX_DIGITS} digits, found {shown(value)}", (*path, name)
        )
    return value


def _listed(value: Any, path: Path) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise ContentError(f"{path[-1]}: expected a list that is not empty, found {shown(value)}", path)
    return value


def _check_keywords(schema: Mapping[str, Any], known: tuple[str, ...], what: str, path: Path) -> None:
    for keyword in schema:
        if keyword not in known and keyword not in _NOTES:
            raise ContentError(
                f"unsupported keyword {keyword!r}: with {what} these are: {', '.join(known)}", (*path, keyword)
            )
