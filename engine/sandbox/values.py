"""JSON text of a value that came out of the interpreter: plain data only, bounded in length and depth."""

import json
import math
import re
from typing import Any

_DEEPEST = 100

# What the interpreter hands over as text where a value has no form outside it.
_PLACEHOLDER = re.compile(r"<(?:function|bound method|coroutine object|deeply nested)\b[^\n]*>|[\[{(]\.\.\.[\]})]")


class NotJson(Exception):
    """The value is no plain data; the text says what it is."""


class TooLong(Exception):
    """The JSON text would pass the limit."""


def json_text(value: object, longest: int, deepest: int) -> str:
    """JSON in one line, keys in their order, tuples as lists.

    A value that appears many times in itself is measured as it would be written, before anything is written.

    Raises:
        NotJson: it holds something else than None, booleans, finite numbers, text, lists, and dicts with text as keys,
            or is nested deeper than `deepest` or 100.
        TooLong: it takes more than `longest` characters.
    """
    _room_left(value, longest, min(deepest - 1, _DEEPEST))
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise NotJson("an integer with more digits than Python writes") from None
    if len(text) > longest:
        raise TooLong
    return text


def _room_left(value: Any, room: int, depth: int) -> int:
    """Characters left of `room` after the fewest that this value can take."""
    if depth < 0:
        raise NotJson("a value nested too deep, or in itself")
    if value is None or isinstance(value, bool):
        room -= 4
    elif isinstance(value, int):
        room -= 1 + int(value.bit_length() / 3.33)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"the number {value}")
        room -= 3
    elif isinstance(value, str):
        if _PLACEHOLDER.fullmatch(value):
            raise NotJson(value[:80])
        room -= 2 + len(value)
    elif isinstance(value, list | tuple):
        room -= 2
        for item in value:
            room = _room_left(item, room - 1, depth - 1)
    elif isinstance(value, dict):
        room -= 2
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJson(f"a dict with a key that is no text but {type(key).__name__}")
            room = _room_left(item, room - 4 - len(key), depth - 1)
    else:
        raise NotJson(f"of type {getattr(value, 'name', None) or type(value).__name__}")
    if room < -1:  # a list counts one comma more than it has
        raise TooLong
    return room
