"""What the two of EvoPrompt share: the population of one text, and the steps by which new texts are made of old ones.

The population is read from the run (Guo 2024, section 3): the best candidates that have seen all of dev, one for each
text. As long as they are fewer than its size, the optimizer's model says the best one's text in other words. A text
goes with the other weights of its candidate; one that is new with those of the candidate it was made from.

Deviations: 6 individuals instead of 10; each step is a request of its own, where theirs are asked for all at once,
because a small model can follow one step; each shows the model two solved ones of other tasks.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow
from engine.optim.history import Candidate, History, Proposal
from engine.optim.words.texts import fits, texts_of
from engine.optim.words.writing import Brief, openings_like, written

SIZE = 6
_SAMPLES = 2  # one more than is needed: some of what a small model writes is of no use
_MOST_CHARS = 300
_MOST_PARTS = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A text of the population, the candidate whose weights go with it, and that one's mean value on dev."""

    text: str
    candidate: Candidate
    value: float


def population(history: History, name: str, rng: Generator) -> Flow[list[Member]]:
    """The population of the text `name`, best first: up to `SIZE` different ones."""
    found: dict[str, Member] = {}
    for candidate in history.best(len(history.candidates)) or [history.incumbent]:
        text = texts_of(candidate.program)[name].value
        found.setdefault(text, Member(text, candidate, history.value(candidate)))
    members = list(found.values())[:SIZE]
    if len(members) < SIZE:
        first = members[0]
        brief = _brief("You say an instruction in other words.", _SAID, first.text)
        said = yield from written(history, brief, SIZE - len(members), rng)
        members += [Member(text, first.candidate, first.value) for text in said if text not in found]
    return members


def roulette(members: Sequence[Member], rng: Generator) -> Member:
    """One of the members, likelier the higher its value; all alike where no value is above 0."""
    values = [max(0.0, member.value) for member in members]
    total = sum(values)
    return members[int(rng.choice(len(members), p=[value / total for value in values] if total > 0 else None))]


def crossed(history: History, first: str, second: str, rng: Generator) -> Flow[str]:
    """A text that has something of both; empty where the model wrote none."""
    return (yield from _one(history, _brief("You combine two instructions into one.", _CROSSED, first, second), rng))


def mutated(history: History, text: str, rng: Generator) -> Flow[str]:
    """A text with some words changed; empty where the model wrote none."""
    brief = _brief("You change a few words of an instruction to make it better.", _MUTATED, text)
    return (yield from _one(history, brief, rng))


def combined(history: History, parts: Sequence[str], best: str, rng: Generator) -> Flow[str]:
    """The text `best` with some words changed after the `parts` of others; empty where the model wrote none."""
    brief = _brief("You change an instruction so that it has other words in it.", _COMBINED, best, parts=parts)
    return (yield from _one(history, brief, rng))


def differing(first: str, second: str) -> list[str]:
    """The longest runs of words that one of two texts has and the other has not, in the order in which they stand."""
    one, other = first.split(), second.split()
    matcher = difflib.SequenceMatcher(a=one, b=other, autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    runs = [run for _, a, b, c, d in changes for run in (one[a:b], other[c:d]) if run]
    parts = dict.fromkeys(" ".join(run).strip(" .,;:") for run in runs)
    longest = sorted(parts, key=len, reverse=True)[:_MOST_PARTS]
    return [part for part in parts if part in longest]


def offspring(name: str, text: str, of: Member, members: Sequence[Member], how: str) -> list[Proposal]:
    """The proposal of a text in the place of a member's, unless it is none, or is in the population already."""
    parameter = texts_of(of.candidate.program)[name]
    if not fits(parameter, text) or any(text == member.text for member in members):
        return []
    return [Proposal({name: text}, f"{name} {how}: {text}", of.candidate)]


def _one(history: History, brief: Brief, rng: Generator) -> Flow[str]:
    texts = yield from written(history, brief, _SAMPLES, rng)
    return texts[0] if texts else ""


def _brief(system: str, shown: tuple[tuple[str, str], ...], *texts: str, parts: Sequence[str] = ()) -> Brief:
    names = ("Instruction 1", "Instruction 2") if len(texts) == 2 else ("Instruction",)
    lines = [f"{name}: {text}" for name, text in zip(names, texts, strict=True)]
    lines += [f"Words to use: {', '.join(parts)}"] if parts else []
    return Brief(system, (Part("\n".join(lines)),), _MOST_CHARS, shown=shown, openings=openings_like(*texts))


_SUM, _SUM_TOO = "Find the sum of the numbers.", "Read the numbers and give the total."
_CITY, _CITY_TOO = "Name the capital of the country.", "Give the city that the country is governed from."
_SAID = (
    (f"Instruction: {_SUM}", "Add all of the numbers up and give the total."),
    (f"Instruction: {_CITY}", "Say which city is the capital of the country."),
)
_CROSSED = (
    (f"Instruction 1: {_SUM}\nInstruction 2: {_SUM_TOO}", "Read the numbers and find their sum."),
    (
        f"Instruction 1: {_CITY}\nInstruction 2: {_CITY_TOO}",
        "Name the city that the country is governed from.",
    ),
)
_MUTATED = (
    (f"Instruction: {_SUM}", "Read all of the numbers carefully, then find their sum."),
    (f"Instruction: {_CITY}", "Look at the name of the country, and give its capital."),
)
_COMBINED = (
    (f"Instruction: {_SUM}\nWords to use: one after another, total", "Add up the numbers one after another."),
    (f"Instruction: {_CITY}\nWords to use: city, governed from", "Name the city that the country is governed from."),
)
