"""Aggregation: many critiques of one parameter as one feedback, what was said often first.

TextGrad (Yuksekgonul 2024) concatenates the gradients of a batch. Deviation: a critique that was said before in nearly
the same words is counted instead, and what does not fit is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.feedback.packing import Part, fitted
from engine.flows import Flow
from engine.records import Feedback, Plain

_SHARED = 0.85
_WORD = re.compile(r"\w+(?:['’]\w+)*")
# What turns a sentence into another one however much of it stays: quotations, numbers and, in English, negations.
_DECISIVE = re.compile(r"\"[^\"]*\"|“[^”]*”|\d+|\b(?:not|never|no|none|nor|without|cannot)\b|n['’]t\b")


@dataclass(frozen=True, slots=True)
class Critique:
    """Something that was said of a parameter because of one example."""

    example: str
    text: str


def aggregated(parameter: str, critiques: Sequence[Critique], room_tokens: int) -> Flow[Feedback]:
    """One feedback from at least one critique, of at most `room_tokens` tokens.

    Critiques that are alike are one line, as the first of them was worded, with their number. The most frequent line
    comes first, of equals the one that was said first. The last ones are left out where there is no room, and of the
    first only its end. `examples` are those of the lines that are told, in the order of the critiques.
    """
    groups: list[_Group] = []
    for place, critique in enumerate(critiques):
        words = _Words.of(critique.text)
        group = next((group for group in groups if group.words.alike(words)), None)
        if group is None:
            groups.append(_Group(critique.text, words, [place]))
        else:
            group.places.append(place)
    groups.sort(key=lambda group: -len(group.places))
    parts = [Part(group.line, len(group.places) if rank else None) for rank, group in enumerate(groups)]
    found = yield from fitted(parts, room_tokens, lambda lines: Plain("\n".join(line.text for line in lines)))
    assert isinstance(found.prompt, Plain)
    told = sorted(place for index in found.kept for place in groups[index].places)
    return Feedback(parameter, found.prompt.text, tuple(dict.fromkeys(critiques[place].example for place in told)))


@dataclass(frozen=True, slots=True)
class _Words:
    """What a sentence is compared by: its words without order and case, and those that decide what it means."""

    all: frozenset[str]
    decisive: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "_Words":
        folded = text.casefold()
        return cls(frozenset(_WORD.findall(folded) or [folded]), frozenset(_DECISIVE.findall(folded)))

    def alike(self, other: "_Words") -> bool:
        """Whether the decisive words are the same, and of all words a share of 0.85 (Jaccard's index)."""
        if self.decisive != other.decisive:
            return False
        return len(self.all & other.all) >= _SHARED * len(self.all | other.all)


@dataclass(slots=True)
class _Group:
    """Critiques that are alike: the first one's text and words, and the places of all."""

    text: str
    words: _Words
    places: list[int]

    @property
    def line(self) -> str:
        times = f" ({len(self.places)} times)" if len(self.places) > 1 else ""
        return f"- {self.text}{times}"
