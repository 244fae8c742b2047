"""Tools at hand: asked for what they take, called, and what they give as text. What layers that use tools share."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ContentError
from engine.flows import Flow, ask, together
from engine.program.code import run_python
from engine.program.tools.spec import ToolSpec, read_tools
from engine.records import CallTool, Completion, Describe


def specs_of(tools: Sequence[str]) -> Flow[tuple[ToolSpec, ...]]:
    """What the user's functions take.

    Raises:
        ContentError: one cannot be described, or two have one name.
    """
    completions = yield from together([ask(Describe(tool)) for tool in tools])
    for completion in completions:
        if completion.text is None:
            raise ContentError(completion.error or "a tool cannot be described")
    return read_tools([json.loads(completion.text or "") for completion in completions]) if tools else ()


def called(tool: str, arguments: Mapping[str, Any]) -> Flow[Completion]:
    """What a function gives for arguments; a failure is a completion with an error."""
    request = CallTool(tool, json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True))
    completion = yield from ask(request)
    return completion


def called_function(
    source: str, name: str, arguments: Mapping[str, Any], seconds: float = 1.0
) -> Flow[tuple[str | None, str]]:
    """What a function of a source gives for arguments, as text, else None and why; it runs in the sandbox."""
    values = {f"argument_{number}": value for number, value in enumerate(arguments.values(), 1)}
    passed = ", ".join(f"{key}={value}" for key, value in zip(arguments, values, strict=True))
    return (yield from run_python(f"{source}\n{name}({passed})", values, seconds))


def typed(spec: ToolSpec, texts: Mapping[str, str]) -> dict[str, Any]:
    """Arguments from the texts of fields: a text where the tool takes one, else the JSON that it is.

    Raises:
        ContentError: an argument is missing, unknown or of another type.
    """
    properties = spec.parameters.get("properties", {})
    arguments = {name: _value(text, properties.get(name, {})) for name, text in texts.items()}
    found = spec.arguments.read(arguments)
    assert isinstance(found, dict)  # arguments are an object
    return found


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "string" or "enum" in schema:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
