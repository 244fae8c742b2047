"""settings: try the other values of the program's choice parameters, such as the prompt style, and their combinations.

A grid, in order of how many settings change; there are few choice parameters and each has few options.
"""

import itertools

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.history import History, Proposal
from engine.program.graph import Program
from engine.program.parameters import Choice

_MOST = 8


class SettingsProposer:
    """Proposes every combination of choice values but the incumbent's, at most eight a round."""

    name = "settings"
    prior = 0.1

    def suits(self, program: Program) -> bool:
        """Whether there is a choice."""
        return any(isinstance(value, Choice) for value in program.parameters.values())

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Combinations with the fewest changes first."""
        yield from ()
        choices = {name: value for name, value in history.program.parameters.items() if isinstance(value, Choice)}
        proposals = []
        for values in itertools.product(*(choice.options for choice in choices.values())):
            edits = {
                name: value
                for (name, choice), value in zip(choices.items(), values, strict=True)
                if value != choice.value
            }
            if edits:
                proposals.append(Proposal(edits, ", ".join(f"{name} = {value}" for name, value in edits.items())))
        proposals.sort(key=lambda proposal: len(proposal.edits))
        return proposals[:_MOST]
