"""Calls of tools as a model writes them: `{"name": "get_weather", "arguments": {"city": "Oslo"}}`, one JSON object.

Whatever the grammar admits `read_call` reads. Arguments come in the order in which the tool declares them, those that
are required always, and with the limits that `json_values` sets, so that a call comes to an end.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ContentError
from engine.program.tools.spec import ToolSpec
from engine.program.typed.grammar import Either, Pattern, gbnf
from engine.program.typed.json_values import Fixed, Object, shown
from engine.tasks.taskfile import nearest


def call_pattern(specs: Sequence[ToolSpec]) -> Pattern:
    """One call of one of these tools, to be put together with what else a reply may hold.

    Raises:
        ContentError: there are no tools, or two of one name.
    """
    calls = tuple(
        Object((("name", Fixed((name,)), True), ("arguments", spec.arguments, True))).pattern()
        for name, spec in _by_name(specs).items()
    )
    return calls[0] if len(calls) == 1 else Either(calls)


def call_grammar(specs: Sequence[ToolSpec]) -> str:
    """GBNF of one call of one of these tools.

    Raises:
        ContentError: there are no tools, two of one name, or more than a grammar can hold.
    """
    return gbnf(call_pattern(specs))


def read_call(text: str, specs: Sequence[ToolSpec]) -> tuple[str, dict[str, Any]]:
    """The name of the called tool, and its arguments: checked, in the declared order, numbers as floats where asked.

    Arguments that were left out stay out; their defaults are the tool's own.

    Raises:
        ContentError: it is no call, or not one that its tool takes.
    """
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        raise ContentError(f"expected a call as JSON, found {shown(text.strip())}") from None
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        raise ContentError(f'expected a call {{"name": …, "arguments": {{…}}}}, found {shown(text.strip())}')
    name, tools = call["name"], _by_name(specs)
    if not isinstance(name, str) or name not in tools:
        known = nearest(name, list(tools)) if isinstance(name, str) else f"one of {', '.join(tools)}"
        raise ContentError(f"unknown tool {shown(name)}: {known}")
    try:
        return name, tools[name].arguments.read(call["arguments"])
    except ContentError as error:
        raise ContentError(f"{name}: {error}") from None


def written_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as text, in the one way that demonstrations and records write it."""
    return json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False, allow_nan=False)


def _by_name(specs: Sequence[ToolSpec]) -> dict[str, ToolSpec]:
    if not specs:
        raise ContentError("a call needs at least one tool")
    tools = {spec.name: spec for spec in specs}
    if len(tools) < len(specs):
        names = [spec.name for spec in specs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ContentError(f"tool {twice!r} stands twice: give every tool a name of its own")
    return tools
