"""settings: the values of choices and numbers around the incumbent's, one at a time, then two choices together.

Coordinate search: every other option of a choice, such as a prompt style, and a number halved and doubled within its
limits. What was tried on this incumbent is not tried again; the next round goes on from what was accepted.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.history import History, Proposal
from engine.optim.novelty import untried
from engine.program.graph import Program
from engine.program.parameters import Choice, Number, Parameter

_MOST = 8
_PART = 16  # of a number's range: the step from zero, which has no half or double


class SettingsProposer:
    """Proposes at most eight neighbours a round, in random order, those that change one choice first."""

    name = "settings"
    prior = 0.08

    def suits(self, program: Program) -> bool:
        """Whether there is a choice or a number to change."""
        return any(_others(name, value) for name, value in program.parameters.items())

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Neighbours that no candidate has been yet; no calls."""
        yield from ()
        new = untried(history, list(_neighbours(history.program, rng)))
        notes = [", ".join(f"{name} = {value}" for name, value in edits.items()) for edits in new]
        return [Proposal(edits, note) for edits, note in zip(new[:_MOST], notes, strict=False)]


def _neighbours(program: Program, rng: Generator) -> Iterator[dict[str, Any]]:
    """Single changes of choices, then of numbers, then of two choices."""
    parameters = program.parameters
    single = {name: _others(name, value) for name, value in parameters.items()}
    for kind in (Choice, Number):
        changes = [
            {name: other} for name, others in single.items() if isinstance(parameters[name], kind) for other in others
        ]
        yield from (changes[int(index)] for index in rng.permutation(len(changes)))
    choices = [name for name, value in parameters.items() if isinstance(value, Choice)]
    pairs = [
        {one: first, other: second}
        for one, other in itertools.combinations(choices, 2)
        for first, second in itertools.product(single[one], single[other])
    ]
    yield from (pairs[int(index)] for index in rng.permutation(len(pairs)))


def _others(name: str, parameter: Parameter) -> list[Any]:
    """The values next to a parameter's own."""
    if isinstance(parameter, Choice):
        return [option for option in parameter.options if option != parameter.value]
    if not isinstance(parameter, Number) or (name.endswith(".nearest") and not parameter.value):
        return []  # whether demonstrations become a pool is not a matter of number
    value, step = parameter.value, (parameter.high - parameter.low) / _PART
    steps = (value / 2, value * 2) if value else (-step, step) if parameter.low < 0 else ()
    least = 1 if name.endswith(".nearest") else parameter.low
    kept = [min(parameter.high, max(least, math.floor(other) if parameter.whole else other)) for other in steps]
    return [other for other in dict.fromkeys(kept) if other != value]
