"""Tools that the user wrote: a Python function with types and a docstring, declared as JSON Schema, and called.

    str, int, float, bool, None    Literal["C", "F"]    list[T]    dict, dict[str, T]    T | None, Optional[T], T | U

A parameter with a default may be left out of a call. A docstring's first paragraph says what the tool is for, and its
`Args:` what each parameter is (Google style).
"""

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engine.errors import ContentError
from engine.tasks.textfile import is_whole
from engine.tasks.usercode import blamed

Tool = Callable[..., Any]

_POSSIBLE = (
    "possible are str, int, float, bool, None, Literal of texts, numbers or booleans, list[…], dict, dict[str, …], "
    "and several of these with |"
)
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Attributes):\s*")
_ARGUMENT = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def tool_declaration(function: Tool) -> dict[str, Any]:
    """The function as a tool is declared: `name`, `description` and `parameters` as JSON Schema.

    Raises:
        ContentError: it is no plain function, or a parameter is of a kind or type that no call in JSON can give; the
            message names file, function and parameter, and what is possible.
    """
    where = tool_name(function)
    if not inspect.isfunction(function) or not function.__name__.isidentifier():
        raise ContentError(f"{where}: a tool is a function written with def")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ContentError(f"{where}: is async: a tool is an ordinary function; write def and wait inside it")
    if inspect.isgeneratorfunction(function):
        raise ContentError(f"{where}: yields: a tool returns its result; make it a list and return that")
    with blamed(f"{where}: its annotations cannot be read"):
        hints = get_type_hints(function)
    description, notes = _docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function).parameters.items():
        place = f"{where}: parameter {name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ContentError(f"{place} {_UNNAMED[parameter.kind]}: a call gives every argument by its name")
        if name not in hints:
            raise ContentError(f"{place} has no type: {_POSSIBLE}")
        schema = _schema(hints[name], place)
        if name in notes:
            schema["description"] = notes[name]
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            schema |= _default(parameter.default)
        properties[name] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": function.__name__, "description": description, "parameters": parameters}


def call_tool(function: Tool, arguments: Mapping[str, Any]) -> str:
    """The function's result as text: a text as it is, all else as JSON.

    Raises:
        ContentError: the arguments are not the function's, it failed, or its result is no JSON; one line that names it.
    """
    where = tool_name(function)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ContentError(f"{where}: {error}") from None
    with blamed(where):
        result = function(**arguments)
    try:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContentError(
            f"{where}: returned {_kind(result)}, which is no JSON ({error}): return text or plain data"
        ) from None
    if not is_whole(text):
        raise ContentError(f"{where}: returned half a character, which is no text")
    return text


def tool_name(function: Tool) -> str:
    """`file.py:function`, as errors name it."""
    inner = inspect.unwrap(function)
    code = getattr(inner, "__code__", None)
    name = getattr(inner, "__name__", type(inner).__name__)
    return f"{Path(code.co_filename).name}:{name}" if code else str(name)


def _schema(hint: Any, place: str) -> dict[str, Any]:
    """The JSON Schema of an annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal and all(type(value) in (str, int, bool, type(None)) for value in inner):
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(option, place) for option in inner]}
    if origin is list and inner:
        return {"type": "array", "items": _schema(inner[0], place)}
    if dict in (hint, origin) and (not inner or inner[0] is str):
        return {"type": "object", "additionalProperties": _schema(inner[1], place) if inner else True}
    shown = hint.__name__ if isinstance(hint, type) and not inner else str(hint).replace("typing.", "")
    raise ContentError(f"{place} has the type {shown}, which no call can give: {_POSSIBLE}")


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph, and what `Args:` says of each parameter; lines that go on are joined."""
    summary: list[str] = []
    notes: dict[str, list[str]] = {}
    section = ""
    margin: int | None = None
    current: list[str] | None = summary
    for line in text.expandtabs().splitlines():
        heading = _SECTION.fullmatch(line)
        if heading:
            section, margin, current = heading[1], None, None
            continue
        if not section:
            current = current if line.strip() or not summary else None
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            margin = depth if margin is None else margin
            named = _ARGUMENT.fullmatch(line.strip()) if depth <= margin else None
            if depth < margin:
                section, current = "Notes", None
            elif named:
                current, line = notes.setdefault(named[1], []), named[2]
        if current is not None:
            current += line.split()
    return " ".join(summary), {name: " ".join(words) for name, words in notes.items() if words}


def _default(value: object) -> dict[str, Any]:
    """A default as plain data; nothing where it is none, since a call need not give it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {}
    return {"default": json.loads(text)} if is_whole(text) else {}


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1].casefold() in "aeiou" else f"a {name}"


_UNNAMED = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name",
}
