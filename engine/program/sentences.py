"""Sentences: a text taken apart where one ends, and put together again."""

import re
from collections.abc import Sequence

_END = re.compile(r"(?<=[.!?:])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9\"'(\[-])|\n+")


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text in their order, the space behind each with it: joined they are the text again.

    One ends at a full stop, question mark, exclamation mark or colon before a capital letter or digit, and at the end
    of a line.
    """
    found, start = [], 0
    for mark in _END.finditer(text):
        found.append(text[start : mark.end()])
        start = mark.end()
    return tuple(part for part in (*found, text[start:]) if part)


def joined(parts: Sequence[str]) -> str:
    """Sentences as one text, a space between any two that have none, none at the end."""
    spaced = [part if part[-1:].isspace() else f"{part} " for part in parts if part.strip()]
    return "".join(spaced).strip()


def without(text: str, index: int) -> str:
    """The text less one of its sentences."""
    parts = sentences(text)
    return joined((*parts[:index], *parts[index + 1 :]))
