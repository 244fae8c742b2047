"""Comparing calls of tools: whether what was written is a call that counts as right.

Two forms of a call are read, alone or in a list, with or without text around them:

    {"name": "get_weather", "arguments": {"city": "Oslo"}}        the arguments may be JSON text
    {"get_weather": {"city": "Oslo"}}

In an accepted answer of the second form every argument may list the values that count as right, with "" where it may
also be left out, as in the ground truth of the Berkeley Function-Calling Leaderboard (Patil et al. 2025):

    {"get_weather": {"city": ["Oslo", "Oslo, Norway"], "unit": ["C", ""]}}

Where every argument is a list, the answer is right as the call that it shows or as what it lists. Deviations from the
leaderboard: punctuation in texts counts, and several calls have an order.
"""

import json
from dataclasses import dataclass

from engine.tasks.answers import normalized, same_value

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. `lists` where its arguments may be lists of accepted values."""

    name: str
    arguments: dict[str, object]
    lists: bool = False


def same_calls(found: list[ToolCall] | None, wanted: list[ToolCall] | None) -> bool:
    """Whether the calls are as many and each of them is the one wanted in its place; never where there are none."""
    if not found or not wanted or len(found) != len(wanted):
        return False
    return all(map(_same_call, found, wanted))


def read_calls(text: str) -> list[ToolCall] | None:
    """The calls that stand in a text; None where it holds something else."""
    listed = _json(text, "[", "]") if text.find("[") < text.find("{") else None
    for values in (listed, [_json(text, "{", "}")]):
        calls = [_call(value) for value in values] if isinstance(values, list) else []
        if calls and all(calls):
            return [call for call in calls if call]
    return None


def _json(text: str, opening: str, closing: str) -> object:
    start, end = text.find(opening), text.rfind(closing)
    try:
        return json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None


def _call(value: object) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    if value.keys() == {"name", "arguments"}:
        name, arguments = value["name"], value["arguments"]
        arguments = _json(arguments, "{", "}") if isinstance(arguments, str) else arguments
        return ToolCall(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None
    if len(value) != 1:
        return None
    ((name, arguments),) = value.items()
    return ToolCall(name, arguments, lists=_all_list(arguments)) if isinstance(arguments, dict) else None


def _same_call(found: ToolCall, wanted: ToolCall) -> bool:
    if found.name != wanted.name:
        return False
    if _same(found.arguments, wanted.arguments):
        return True
    return wanted.lists and _fits_each(found.arguments, wanted.arguments)


def _same(found: object, wanted: object) -> bool:
    """Whether two JSON values are equal, their texts but for case and white space."""
    return same_value(found, wanted, normalized)


def _fits_each(found: dict[str, object], wanted: dict[str, object]) -> bool:
    """Whether every value is among those listed for its name, where "" stands for being left out."""
    return found.keys() <= wanted.keys() and all(
        any(_fits(found.get(name, _ABSENT), option) for option in options)
        for name, options in wanted.items()
        if isinstance(options, list)
    )


def _fits(found: object, option: object) -> bool:
    """Whether a value is one option; objects inside it list the values of their fields in turn."""
    if found is _ABSENT:
        return option == ""
    if isinstance(found, dict) and isinstance(option, dict) and _all_list(option):
        return _fits_each(found, option) or _same(found, option)
    if isinstance(found, list) and isinstance(option, list):
        return len(found) == len(option) and all(map(_fits, found, option))
    return _same(found, option)


def _all_list(arguments: dict[str, object]) -> bool:
    return bool(arguments) and all(isinstance(value, list) and value for value in arguments.values())
