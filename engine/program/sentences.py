"""Sentences: a text taken apart and put together again, with nothing lost.

A sentence ends with a mark and white space behind it, or with its line. None ends behind an abbreviation or its own
number (`1. Read the text.` is one), nor before a small letter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|(?=\n)|[。！？]+)\s*|\Z")
_SHORT = re.compile(r"(?:^|[\s(\"'])(?:e\.g|i\.e|etc|vs|cf|approx|mr|mrs|ms|dr|st)\.$", re.IGNORECASE)
_NUMBERED = re.compile(r"\(?(?:\d+|[^\W\d_])[.)]$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a sentence, with its mark, and the white space behind it. Before a text it stands without words."""

    words: str
    gap: str = ""


Sentences = tuple[Sentence, ...]


def split(text: str) -> Sentences:
    """The sentences of a text, in order; `joined` gives the text back."""
    start = len(text) - len(text.lstrip())
    found = [Sentence("", text[:start])] if start else []
    for match in _END.finditer(text, start):
        piece = text[start : match.end()]
        words = piece.rstrip()
        if not words or (match.end() < len(text) and _goes_on(words, piece[len(words) :], text[match.end()])):
            continue
        found.append(Sentence(words, piece[len(words) :]))
        start = match.end()
    return tuple(found)


def joined(sentences: Sequence[Sentence]) -> str:
    """The text of sentences."""
    return "".join(sentence.words + sentence.gap for sentence in sentences)


def without(sentences: Sentences, place: int) -> Sentences:
    """All but one; the white space that ended the text still ends it."""
    rest = [*sentences[:place], *sentences[place + 1 :]]
    if rest and place == len(rest):
        rest[-1] = replace(rest[-1], gap=sentences[place].gap)
    return tuple(rest)


def inserted(sentences: Sentences, place: int, words: str) -> Sentences:
    """One more before `place`, or at the end, set off as the others are: by lines where these are lines."""
    between = "\n" if any("\n" in sentence.gap for sentence in sentences[:-1]) else " "
    if place < len(sentences):
        return (*sentences[:place], Sentence(words, between), *sentences[place:])
    if not sentences:
        return (Sentence(words),)
    last = sentences[-1]
    return (*sentences[:-1], replace(last, gap=between), Sentence(words, last.gap))


def replaced(sentences: Sentences, place: int, words: str) -> Sentences:
    """One said otherwise."""
    return (*sentences[:place], replace(sentences[place], words=words), *sentences[place + 1 :])


def moved(sentences: Sentences, place: int, to: int) -> Sentences:
    """One taken out, and put in again before what is then at `to`."""
    return inserted(without(sentences, place), to, sentences[place].words)


def _goes_on(words: str, gap: str, following: str) -> bool:
    """Whether what looks like the end of a sentence is none."""
    if "\n" in gap or not words[-1].isascii():
        return False
    return following.islower() or bool(_SHORT.search(words) or _NUMBERED.fullmatch(words))
