"""evoprompt_de: differential evolution over texts whose operators the model carries out (EvoPrompt; Guo 2024, DE).

For a member of the population two others are drawn. The parts in which these differ are mutated and combined with the
best text, and the result is crossed over with the member's own text, in whose place it is proposed.

Deviations: which parts differ is found by comparing the words of the two, not asked of the model; whether a trial takes
the member's place is decided by the run, which keeps the best.
"""

from collections.abc import Sequence

from numpy.random import Generator

from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.words.population import (
    Member,
    combined,
    crossed,
    differing,
    offspring,
    population,
)
from engine.optim.words.texts import next_text, texts_of
from engine.program.graph import Program

_TRIALS = 3


class EvoPromptDEProposer:
    """Proposes up to three trial texts, each in the place of a member of the population of one text."""

    name = "evoprompt_de"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Trials for members in a random order; none where there are fewer than three members."""
        name = next_text(history, self.name, list(texts_of(history.program)), rng)
        first, *others = rng.spawn(1 + _TRIALS)
        members = yield from population(history, name, first)
        if len(members) < 3:
            return []
        order = first.permutation(len(members))[:_TRIALS]
        flows = [_trial(history, name, members, int(place), other) for place, other in zip(order, others, strict=False)]
        return [proposal for proposals in (yield from together(flows)) for proposal in proposals]


def _trial(history: History, name: str, members: Sequence[Member], place: int, rng: Generator) -> Flow[list[Proposal]]:
    """Differing parts of two others, mutated and combined with the best; the result crossed over with the member."""
    member = members[place]
    rest = [other for other in members if other is not member]
    one, other = (rest[int(index)] for index in rng.choice(len(rest), size=2, replace=False))
    donor = yield from combined(history, differing(one.text, other.text), members[0].text, rng)
    if not donor:
        return []
    trial = yield from crossed(history, member.text, donor, rng)
    return offspring(name, trial or donor, member, members, "crossed over with differing parts")
