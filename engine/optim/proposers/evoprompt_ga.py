"""evoprompt_ga: a genetic algorithm over texts whose operators the model carries out (EvoPrompt; Guo 2024, GA).

Two parents are drawn from the population by roulette wheel; the model crosses them over, then mutates the child. The
best of parents and children live on, which the run sees to: the population is made of the best it has raced.

A child takes the place of the better parent's text, whose other weights it keeps.
"""

from collections.abc import Sequence

from numpy.random import Generator

from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.words.population import (
    Member,
    crossed,
    mutated,
    offspring,
    population,
    roulette,
)
from engine.optim.words.texts import next_text, texts_of
from engine.program.graph import Program

_CHILDREN = 3


class EvoPromptGAProposer:
    """Proposes up to three children of the population of one text."""

    name = "evoprompt_ga"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Children, each of two parents of its own."""
        name = next_text(history, self.name, list(texts_of(history.program)), rng)
        first, *others = rng.spawn(1 + _CHILDREN)
        members = yield from population(history, name, first)
        children = yield from together([_child(history, name, members, other) for other in others])
        return [proposal for proposals in children for proposal in proposals]


def _child(history: History, name: str, members: Sequence[Member], rng: Generator) -> Flow[list[Proposal]]:
    """Crossover, then mutation; where there is one member alone, mutation."""
    parents = [roulette(members, rng)]
    rest = [member for member in members if member is not parents[0]]
    text = parents[0].text
    if rest:
        parents.append(roulette(rest, rng))
        text = (yield from crossed(history, text, parents[1].text, rng)) or text
    changed = yield from mutated(history, text, rng)
    better = max(parents, key=lambda member: member.value)
    return offspring(name, changed or text, better, members, "crossed over and mutated")
