"""token_caps: how much an open answer may write, fitted to the answers of train.

A cap far above the longest answer lets a small model ramble on behind the right one and costs time; one below cuts
answers off. The tokens of the targets are counted, which costs no call, and the cap becomes those of the longest and
two more, by which the model can end. (ours)
"""

from numpy.random import Generator

from engine.errors import ContentError
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.program.graph import Program
from engine.program.layers import Predict
from engine.program.places import places
from engine.records import Count, Plain

_TO_END = 2


class TokenCapsProposer:
    """Proposes the cap for all layers that write the program's answer and nothing else."""

    name = "token_caps"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is such a layer."""
        return bool(_caps(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """One proposal, or none where the caps are these already or train has no targets."""
        program = history.program
        targets = dict.fromkeys(example.target for example in history.train if example.target)
        counted = yield from together([ask(Count(Plain(f" {target}"))) for target in targets])
        cap = max((completion.count or 0 for completion in counted), default=0) + _TO_END
        edits = {name: cap for name in _caps(program) if program.parameters[name].value != cap}
        try:
            program.replace(edits)
        except ContentError:  # beyond what a layer can write
            return []
        names = ", ".join(edits)
        return [Proposal(edits, f"{names} = {cap}, by the longest target of train")] if edits and targets else []


def _caps(program: Program) -> list[str]:
    return [
        f"{place.name}.max_tokens"
        for place in places(program)
        if isinstance(place.layer, Predict) and place.answers and len(place.layer.outputs) == 1
        and "max_tokens" in place.parameters()
    ]  # fmt: skip
