"""bias: fit the output node's bias per label on the train log-likelihoods.

Calibration with labels (compare Zhao 2021, section 5, which uses content-free inputs instead). One pass over train; the
fit itself costs no model call.
"""

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.calibration import bias_parameter, calibrated, unseen
from engine.optim.history import History, Proposal
from engine.program.graph import Program


class BiasProposer:
    """Proposes the incumbent with its bias fitted on as much of train as the allowance covers."""

    name = "bias"
    prior = 0.15

    def suits(self, program: Program) -> bool:
        """Whether the answer is closed."""
        return bias_parameter(program) is not None

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """One proposal, or none where the fit changes nothing."""
        program = history.program
        name = bias_parameter(program)
        examples = unseen(program, history.train)[: max(20, history.allowance_calls // 2)]
        if name is None or not examples:
            return []
        found = yield from calibrated(program, examples, history.objective)
        fitted = found.program.parameters[name].value
        if not fitted or fitted == program.parameters[name].value:
            return []
        return [Proposal({name: fitted}, f"bias fitted on {len(examples)} train examples")]
