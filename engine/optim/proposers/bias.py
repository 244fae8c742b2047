"""bias: fit the output node's bias per label on the train log-likelihoods.

Calibration with labels (compare Zhao 2021, section 5, which uses content-free inputs instead). One pass over train; the
fit itself costs no model call.
"""

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.calibration import bias_parameter, calibrated, unseen
from engine.optim.history import History, Proposal


class BiasProposer:
    """Proposes the incumbent with its bias fitted on as much of train as the allowance covers."""

    name = "bias"
    wants_feedback = False

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """One proposal, or none where the program has no closed answer."""
        name = bias_parameter(history.incumbent)
        examples = unseen(history.incumbent, history.train)[: max(20, history.allowance_calls // 2)]
        if name is None or not examples:
            return []
        found = yield from calibrated(history.incumbent, examples, history.metric)
        fitted = found.program.parameters[name].value
        if not fitted or fitted == history.incumbent.parameters[name].value:
            return []
        return [Proposal({name: fitted}, f"bias fitted on {len(examples)} train examples")]
