"""Tools as a program sees them: a name, what it is for, and what its arguments may be, as JSON Schema.

A tool is declared in one of the common ways, all of which `ToolSpec.from_schema` reads:

    {"type": "function", "function": {"name", "description", "parameters"}}
    {"name", "description", "parameters"}, or input_schema or inputSchema in place of parameters

Knows nothing of how a tool is called, nor of the code behind it.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ContentError
from engine.program.tools.dialects import ANY, standard
from engine.program.typed.grammar import gbnf
from engine.program.typed.json_schema import Path, json_schema
from engine.program.typed.json_values import Object, compact, shown
from engine.tasks.taskfile import nearest
from engine.tasks.textfile import is_whole

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_PARAMETERS = ("parameters", "input_schema", "inputSchema")
_KEYS = ("name", "description", *_PARAMETERS)
_PASSED_OVER = ("type", "strict", "title", "annotations", "outputSchema", "response", "returns", "cache_control")
_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool. `schema` is JSON text, of an object with the arguments as its properties: a mapping could be changed.

    Raises:
        ContentError: the name or the schema cannot be used; `path` leads to the place.
    """

    name: str
    description: str
    schema: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ContentError(
                f"name: expected up to 100 letters, digits, _ . - beginning with a letter, found {shown(self.name)}",
                ("name",),
            )
        if not isinstance(self.description, str) or not is_whole(self.description):
            raise ContentError(f"description: expected text, found {shown(self.description)}", ("description",))
        _arguments(self.schema)

    @classmethod
    def from_schema(cls, declared: Any) -> "ToolSpec":
        """The tool that a declaration describes, its schema in standard words.

        Raises:
            ContentError: it is no declaration of a tool, or asks for what a grammar cannot follow; the message names
                the tool, and `path` leads to the place in the declaration.
        """
        function, path = _function(declared)
        key = next((key for key in _PARAMETERS if key in function), "parameters")
        name = function.get("name")
        if name is None:
            raise ContentError("a tool without a name", path)
        try:
            schema = _plain(standard(function.get(key, {"type": "object"})))
            description = function.get("description")
            return cls(name, "" if description is None else description, schema)
        except ContentError as error:
            place = (key, *error.path[1:]) if error.path[:1] == ("parameters",) else error.path
            where = ".".join(str(part) for part in place)
            said = str(error) if place in (("name",), ("description",)) else f"{where}: {error}"
            raise ContentError(f"tool {name!r}: {said}", (*path, *place)) from None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema as a mapping."""
        return dict(json.loads(self.schema))

    @property
    def arguments(self) -> Object:
        """What describes and reads the arguments."""
        return _arguments(self.schema)

    @property
    def signature(self) -> str:
        """One line such as `get_weather(city: str, unit: "C" | "F" = "C")`; `days?: int` may be left out."""
        return f"{self.name}({', '.join(_properties(self.parameters, self.parameters.get('$defs', {})))})"

    def to_mapping(self) -> dict[str, Any]:
        """As plain data, which `from_schema` reads back."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


def read_tools(declared: Any) -> tuple[ToolSpec, ...]:
    """Tools from a list of declarations or its JSON text, such as a field of a row.

    Raises:
        ContentError: no such list, or two tools of one name; `path` leads to the place.
    """
    if isinstance(declared, str):
        try:
            declared = json.loads(declared)
        except (ValueError, RecursionError):
            raise ContentError(f"expected a list of tools as JSON, found {shown(declared)}") from None
    if not isinstance(declared, list | tuple) or not declared:
        raise ContentError(f"expected a list of at least one tool, found {shown(declared)}")
    specs: list[ToolSpec] = []
    for index, one in enumerate(declared):
        try:
            specs.append(ToolSpec.from_schema(one))
        except ContentError as error:
            raise ContentError(str(error), (index, *error.path)) from None
        if specs[-1].name in [spec.name for spec in specs[:-1]]:
            raise ContentError(f"tool {specs[-1].name!r} stands twice: give every tool a name of its own", (index,))
    return tuple(specs)


def described(specs: Sequence[ToolSpec]) -> str:
    """The tools as a prompt lists them: signature and purpose on one line, then a line for each described argument."""
    lines: list[str] = []
    for spec in specs:
        lines.append(f"- {spec.signature}: {_folded(spec.description)}" if spec.description else f"- {spec.signature}")
        for name, schema in spec.parameters.get("properties", {}).items():
            if schema.get("description"):
                lines.append(f"    {name}: {_folded(str(schema['description']))}")
    return "\n".join(lines)


def _function(declared: Any) -> tuple[Mapping[str, Any], Path]:
    """The mapping with the name in it, and the way to it."""
    if not isinstance(declared, Mapping):
        raise ContentError(f"expected a tool (a mapping with a name and parameters), found {shown(declared)}")
    path: Path = ("function",) if "function" in declared else ()
    function = declared["function"] if path else declared
    if not isinstance(function, Mapping):
        raise ContentError(f"function: expected a mapping with a name and parameters, found {shown(function)}", path)
    for key in function:
        if key not in _KEYS and key not in _PASSED_OVER:
            raise ContentError(f"unknown key {key!r} of a tool: {nearest(str(key), list(_KEYS))}", (*path, str(key)))
    return function, path


def _plain(schema: Any) -> str:
    try:
        text = compact(schema)
        plain = is_whole(text) and json.loads(text) == schema
    except (TypeError, ValueError, RecursionError):
        plain = False
    if not plain:
        raise ContentError("expected plain JSON data", ("parameters",))
    return text


@functools.lru_cache(maxsize=256)
def _arguments(schema: str) -> Object:
    """What a schema says, once its grammar is known to be small enough."""
    try:
        part = json_schema(json.loads(schema))
        gbnf(part.pattern())
    except ContentError as error:
        raise ContentError(str(error), ("parameters", *error.path)) from None
    if not isinstance(part, Object):
        raise ContentError("expected an object with the arguments as its properties", ("parameters",))
    return part


def _properties(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """`name: type` of every property, `name?: type` or `name: type = default` where it may be left out."""
    listed = []
    for name, inner in schema.get("properties", {}).items():
        optional = name not in schema.get("required", [])
        default = f" = {compact(inner['default'])}" if optional and "default" in inner else ""
        listed.append(f"{name}{'?' if optional and not default else ''}: {_type(inner, definitions)}{default}")
    return listed


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A schema as one would write it in a signature; values as JSON writes them."""
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if schema.get("anyOf") == ANY["anyOf"]:
        return "any"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(_type(option, definitions) for option in schema[union]))
    if "enum" in schema or "const" in schema:
        return " | ".join(compact(value) for value in schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "array":
            return f"list[{_type(schema['items'], definitions)}]"
        case "object" if "additionalProperties" in schema and schema["additionalProperties"] is not False:
            return f"dict[str, {_type(schema['additionalProperties'], definitions)}]"
        case "object":
            return f"{{{', '.join(_properties(schema, definitions))}}}"
        case kind:
            return _WORDS[kind]


def _folded(text: str) -> str:
    return " ".join(text.split())
