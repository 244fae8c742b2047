"""labelled_demos: train rows with their targets as demonstrations, as many as fit a size (DSPy's LabeledFewShot).

Theirs shows k rows drawn at random. Deviations: one set in each of several sizes, balanced over the answers, since a
small model repeats the answer it has read most often. Nothing is measured here: the loop does that for every proposal.
"""

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.demonstrations import described, from_targets, shown, sized, takes_labelled
from engine.optim.history import History, Proposal
from engine.optim.screening import showable
from engine.program.graph import Program

_SIZES = (16, 8, 4)


class LabelledDemosProposer:
    """Proposes a set of each size for the places that give the program's answer from its inputs."""

    name = "labelled_demos"
    prior = 0.15

    def suits(self, program: Program) -> bool:
        """Whether there is such a place."""
        return any(map(takes_labelled, shown(program)))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The sets, the largest first; no calls."""
        yield from ()
        solved = from_targets(history.program, showable(history.train))
        sets = sized(history.program, solved, _SIZES, rng)
        return [Proposal(edits, f"labelled {described(edits)}") for edits in sets]
