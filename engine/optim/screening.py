"""Screening: how a program does on some train rows, measured the cheapest way that tells programs apart.

Closed answers: the cross-entropy, after fitting a bias where biases are weights of the run. An open answer that stands
alone: the likelihood of the accepted one, which costs no writing. Anything else is executed and scored.
"""

from collections.abc import Sequence

from engine.feedback.likelihood import WORST, answer_losses, tells_likelihood
from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.flows import Flow
from engine.optim.calibration import Calibrated, bias_parameter, calibrated
from engine.program.graph import Program
from engine.records import Example
from engine.statistics import mean

# Where the accepted answer is what should be written, and not just something that should stand in it somewhere.
_LITERAL = ("exact_match", "macro_f1", "token_f1", "json_fields", "tool_call")


def measured(program: Program, examples: Sequence[Example], objective: Objective, calibrates: bool) -> Flow[Calibrated]:
    """The program with the bias that suits it, where biases are fitted, and its loss; losses of one kind compare."""
    if bias_parameter(program) is not None:
        if calibrates:
            return (yield from calibrated(program, examples, objective))
    elif tells_likelihood(program) and objective.metric.name in _LITERAL:
        losses = yield from answer_losses(program, examples)
        if any(loss < WORST for loss in losses):
            return Calibrated(program, mean(losses))
    return Calibrated(program, mean_loss((yield from objective.run(program, examples))))
