"""The dialects in which tools declare their parameters, turned into the JSON Schema that `json_schema` reads.

    dict, float, tuple, any, str, STRING …    other names of types; any is text, number, true, false or null, or a
                                              list or an object of these
    type: [string, null], nullable: true      anyOf
    an object that names no properties        additionalProperties: the schema of any value
    a list that names no items                items: the schema of any value
    format, optional, deprecated …            left out: they say nothing that a grammar could follow

What neither this nor `json_schema` knows stays as it is, and is refused there by its name.
"""

from collections.abc import Mapping
from typing import Any

from engine.errors import ContentError
from engine.program.typed.json_schema import KEYWORDS, MAX_DEPTH, Path
from engine.program.typed.json_values import shown

_TYPES = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "dict": "object",
    "hashmap": "object",
    "none": "null",
} | {name: name for name in KEYWORDS}
_SAYS_NOTHING = ("format", "optional", "deprecated", "readOnly", "writeOnly")
_SCALARS = [{"type": name} for name in ("string", "integer", "number", "boolean", "null")]
_LIST = {"type": "array", "items": {"anyOf": _SCALARS}}
ANY: dict[str, Any] = {
    "anyOf": [*_SCALARS, _LIST, {"type": "object", "additionalProperties": {"anyOf": [*_SCALARS, _LIST]}}]
}


def standard(parameters: Any) -> dict[str, Any]:
    """The parameters of a tool in standard words: the schema of an object, which may have no properties.

    Raises:
        ContentError: they are no schema of an object; `path` begins with "parameters".
    """
    path: Path = ("parameters",)
    if not isinstance(parameters, Mapping):
        raise ContentError(f"expected a schema (a mapping with a type), found {shown(parameters)}", path)
    kind = parameters.get("type", "object")
    if not isinstance(kind, str) or _named(kind) != "object":
        raise ContentError(
            f"expected an object with the arguments as its properties, found type {shown(kind)}", (*path, "type")
        )
    schema = {key: value for key, value in parameters.items() if key not in _SAYS_NOTHING}
    if schema.get("additionalProperties") in (True, {}):
        del schema["additionalProperties"]
    schema |= {"type": "object", "properties": _each(schema.get("properties", {}), (*path, "properties"))}
    if "$defs" in schema:
        schema["$defs"] = _each(schema["$defs"], (*path, "$defs"))
    return schema


def _each(schemas: Any, path: Path) -> Any:
    if not isinstance(schemas, Mapping):
        return schemas
    return {name: _standard(schema, (*path, name)) for name, schema in schemas.items()}


def _standard(given: Any, path: Path) -> Any:
    """One schema at its place."""
    if not isinstance(given, Mapping):
        return given
    if len(path) > 3 * MAX_DEPTH:
        raise ContentError(f"a schema nested deeper than {MAX_DEPTH}", path)
    schema = {key: value for key, value in given.items() if key not in _SAYS_NOTHING}
    if schema.pop("nullable", False) is True:
        notes = {key: schema.pop(key) for key in ("description", "default") if key in schema}
        return notes | {"anyOf": [_standard(schema, path), {"type": "null"}]}
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            schema[union] = [_standard(option, (*path, union, n)) for n, option in enumerate(schema[union])]
    kind = schema.get("type")
    if isinstance(kind, list):
        return _of_types(schema, kind, path)
    if kind == "any" or (kind is None and not schema.keys() - {"title", "description", "default", "examples"}):
        schema.pop("type", None)
        return schema | ANY
    if isinstance(kind, str):
        schema["type"] = _named(kind)
    match schema.get("type"):
        case "object":
            return _object(schema, path)
        case "array" if "enum" not in schema:
            schema["items"] = _standard(schema.get("items", {}), (*path, "items"))
    return schema


def _object(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    others = schema.pop("additionalProperties", {})
    if schema.get("properties"):
        schema["properties"] = _each(schema["properties"], (*path, "properties"))
        return schema if others in (True, {}) else schema | {"additionalProperties": others}
    if others is False:
        return schema | {"additionalProperties": False}
    schema.pop("properties", None)
    inner = {} if others is True else others
    return schema | {"additionalProperties": _standard(inner, (*path, "additionalProperties"))}


def _of_types(schema: dict[str, Any], kinds: list[Any], path: Path) -> dict[str, Any]:
    """Several types as alternatives, each with the keywords that are its own."""
    del schema["type"]
    if "enum" in schema:
        return schema
    options = []
    for kind in kinds:
        known = KEYWORDS.get(_named(kind), ()) if isinstance(kind, str) else ()
        option = {"type": kind} | {key: schema[key] for key in known if key in schema}
        options.append(_standard(option, path))
    taken = {key for option in options for key in option}
    return {key: value for key, value in schema.items() if key not in taken} | {"anyOf": options}


def _named(kind: str) -> str:
    """A type by its name in JSON Schema; an unknown one as it is."""
    return _TYPES.get(kind.casefold(), kind)
