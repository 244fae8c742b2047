"""Labels that a text lists: `one of: person, place or number`. English words are looked for, so this is a guess."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.tasks.answers import normalized

_ITEM = r"(?:\"[^\"\n]{1,60}\"|'[^'\n]{1,60}'|[\w&-]+(?: [\w&-]+){0,3})"
_NEXT = r"(?:\s*,\s*(?:or\s+|and\s+)?|\s*/\s*|\s*\|\s*|\s+or\s+|\s+and\s+)"
_LIST = rf"{_ITEM}(?:{_NEXT}{_ITEM})+"
_INTRODUCTIONS = (
    r"\bone of(?: the| these)?(?: following)?(?: \w+)?\s*:?\s+",
    r"\b(?:choose|pick|select)(?: one)? (?:from|between|among)\s*:?\s+",
    r"\b(?:labels?|classes|categories|options|choices)(?: are| is|:)\s+",
    r"\b(?:answer|reply|respond)(?: only)?(?: with|:)(?: only| either)?\s+",
    r"\bclassif\w+ (?:\w+ ){0,5}(?:as|into)(?: either)?\s+",
    r"\b(?:answer|reply|respond|say)\s+(?=(?:yes|no|true|false)\b)",
)
_INTRODUCED = re.compile(rf"(?:{'|'.join(_INTRODUCTIONS)})(?P<list>{_LIST})", re.IGNORECASE)
_FREE = re.compile(rf"(?P<list>{_LIST})")
_AFTER_EXAMPLE = re.compile(r"(?:such as|e\.g\.|for example|like)[\s:,]*$", re.IGNORECASE)
_LAST = re.compile(rf"\s+(?:or|and)\s+{_ITEM}")
_SPLIT = re.compile(_NEXT)
_ARTICLES = re.compile(r"^(?:(?:or|and|a|an|the)\s+)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a text enumerates; `as_answers` where it says that these are what to answer with."""

    items: tuple[str, ...]
    as_answers: bool


def listed_labels(text: str, labels: Sequence[str]) -> Iterator[Listed]:
    """The lists of a text whose items could be labels like these, since they have no more words than the longest."""
    for found in _INTRODUCED.finditer(text):
        items, ends = _items(found["list"], labels)
        if len(items) > 2 or (len(items) > 1 and ends):
            yield Listed(items, True)
    for found in _FREE.finditer(text):
        items, _ = _items(found["list"], labels)
        if len(items) > 1 and not _AFTER_EXAMPLE.search(text[: found.start()]):
            yield Listed(items, False)


def _items(listed: str, labels: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The items up to the one behind `or`, and whether there is one; of the outer ones what around them is no label."""
    last = _LAST.search(listed)
    written = [_ARTICLES.sub("", item.strip()) for item in _SPLIT.split(listed[: last.end()] if last else listed)]
    if written:
        written[0] = _trimmed(written[0], labels, from_left=True)
        written[-1] = _trimmed(written[-1], labels, from_left=False)
    most = max((len(label.split()) for label in labels), default=1)
    items = [item.strip("\"'") for item in written]
    return tuple(item for item in items if item and len(item.split()) <= most), last is not None


def _trimmed(item: str, labels: Sequence[str], from_left: bool) -> str:
    """The longest label that an item ends with (or begins with), or all of it: sentences go on around a list."""
    known = set(map(normalized, labels))
    words = item.split()
    for gone in range(1, len(words)):
        rest = " ".join(words[gone:] if from_left else words[:-gone])
        if normalized(rest) in known:
            return rest
    return item
