"""bias: fit the bias per label of whatever chooses the answer on the train log-likelihoods.

Calibration with labels (compare Zhao 2021, section 5, which uses content-free inputs instead). One pass over train; the
fit itself costs no model call.
"""

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.calibration import biased, calibrated
from engine.optim.history import History, Proposal
from engine.optim.screening import calls_each, probe
from engine.program.graph import Program


class BiasProposer:
    """Proposes the incumbent with its biases fitted on as much of train as half the allowance covers."""

    name = "bias"
    prior = 0.05

    def suits(self, program: Program) -> bool:
        """Whether the answer is closed."""
        return bool(biased(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """One proposal, or none where the fit changes nothing."""
        program = history.program
        examples = probe(program, history.train, history.allowance_calls // 2 // calls_each(program, calibrates=True))
        if not examples:
            return []
        found = yield from calibrated(program, examples, history.objective)
        known = program.parameters
        fitted = {name: found.program.parameters[name].value for name in biased(program)}
        edits = {name: value for name, value in fitted.items() if value and value != known[name].value}
        return [Proposal(edits, f"bias fitted on {len(examples)} train examples")] if edits else []
