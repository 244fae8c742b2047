"""Labels that a text lists: `one of: person, place or number`. English words are looked for, so this is a guess."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WORD = r"(?!(?:or|and)\b)[\w&-]+"
_ITEM = rf"(?:\"[^\"\n]{{1,60}}\"|'[^'\n]{{1,60}}'|{_WORD}(?: {_WORD}){{0,3}})"
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
_MASK = re.compile(r"__(\d+)__")


@dataclass(frozen=True, slots=True)
class Listed:
    """What a text enumerates; `as_answers` where it says that these are what to answer with."""

    items: tuple[str, ...]
    as_answers: bool


def listed_labels(text: str, labels: Sequence[str]) -> Iterator[Listed]:
    """The lists of a text whose items could be labels like these, since they have no more words than the longest."""
    masked = _masked(text, labels)
    most = max((len(label.split()) for label in labels), default=1)
    for found in _INTRODUCED.finditer(masked):
        items, ends = _items(found["list"], labels, most)
        if len(items) > 2 or (len(items) > 1 and ends):
            yield Listed(items, True)
    for found in _FREE.finditer(masked):
        items, _ = _items(found["list"], labels, most)
        if len(items) > 1 and not _AFTER_EXAMPLE.search(masked[: found.start()]):
            yield Listed(items, False)


def _masked(text: str, labels: Sequence[str]) -> str:
    """The text with each label as one word, its number: some hold what else parts the items of a list."""
    if not labels:
        return text
    numbers = {label.casefold(): number for number, label in enumerate(labels)}
    longest_first = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    return re.sub(
        rf"(?<!\w)(?:{longest_first})(?!\w)",
        lambda found: f"__{numbers[found[0].casefold()]}__" if found[0].casefold() in numbers else found[0],
        text,
        flags=re.IGNORECASE,
    )


def _items(listed: str, labels: Sequence[str], most: int) -> tuple[tuple[str, ...], bool]:
    """The items up to the one behind `or`, without what stands around the outer ones; and whether its end is clear."""
    last = _LAST.search(listed)
    written = [_ARTICLES.sub("", item.strip()) for item in _SPLIT.split(listed[: last.end()] if last else listed)]
    if written:
        written[0] = _trimmed(written[0], from_left=True)
        written[-1] = _trimmed(written[-1], from_left=False)
    items = [item.strip("\"'") for item in written]
    kept = [item for item in items if item and len(item.split()) <= most]
    clear = last is not None or any(mark in listed for mark in "/|")
    return tuple(_MASK.sub(lambda found: labels[int(found[1])], item) for item in kept), clear


def _trimmed(item: str, from_left: bool) -> str:
    """The label that an item ends with (or begins with), or all of it: sentences go on around a list."""
    word = item.split()[-1 if from_left else 0] if item else ""
    return word if _MASK.fullmatch(word) else item
