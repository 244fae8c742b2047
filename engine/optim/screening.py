"""Screening: how a program does on some train rows, measured the cheapest way that tells programs apart.

Closed answers: the cross-entropy, after fitting a bias where biases are weights of the run. An open answer that stands
alone: the likelihood of the accepted one, which costs no writing. Anything else is executed and scored.

Of an open answer's likelihood p the loss is 1 - sqrt(p). Its logarithm speaks mostly of the rows that no prompt gets
right: over 24 sets of demonstrations for ii_larger_animal its rank correlation with the score on dev was -0.06 on 24
rows and -0.53 on 64, that of the root -0.66 and -0.70; for ii_antonyms -0.51 and -0.49, and -0.59 and -0.79.

Whoever measures takes the same rows first, so that figures compare and what is known already is not asked again; what
is shown in prompts is taken from the other half of train.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.feedback.likelihood import WORST, answer_losses, tells_likelihood
from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.flows import Flow, together
from engine.optim.calibration import Calibrated, biased, calibrated, unseen
from engine.optim.history import History
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.records import Example
from engine.statistics import mean

# Where the accepted answer is what should be written, and not just something that should stand in it somewhere.
_LITERAL = ("exact_match", "macro_f1", "token_f1", "json_fields", "tool_call")
_GOLDEN = 0.6180339887498949


def measured(program: Program, examples: Sequence[Example], objective: Objective, calibrates: bool) -> Flow[Calibrated]:
    """The program with the biases that suit it, where they are fitted, and its loss; losses of one kind compare."""
    if biased(program):
        if calibrates:
            return (yield from calibrated(program, examples, objective))
    elif tells_likelihood(program) and objective.metric.name in _LITERAL:
        losses = yield from answer_losses(program, examples)
        if any(loss < WORST for loss in losses):
            return Calibrated(program, mean([1 - math.exp(-loss / 2) for loss in losses]))
    return Calibrated(program, mean_loss((yield from objective.run(program, examples))))


def calls_each(program: Program, calibrates: bool) -> int:
    """How many calls it takes to measure a program on one example, as far as that can be told beforehand."""
    again = calibrates and any(place.path for place in biased(program).values())
    return max(1, estimate(program, {}).calls) * (2 if again else 1)


def probe(program: Program, train: Sequence[Example], many: int) -> list[Example]:
    """The first `many` rows to measure a program on, none of which it shows; they are spread evenly over train."""
    return unseen(program, _spread(train))[:many]


def showable(train: Sequence[Example]) -> list[Example]:
    """The half of train that prompts may show, of which programs are measured last."""
    return _spread(train)[(len(train) + 1) // 2 :]


@dataclass(frozen=True, slots=True)
class Measured:
    """Edits of the incumbent and the loss on train of the program that they make."""

    edits: Mapping[str, Any]
    loss: float


def losses(history: History, edits: Sequence[Mapping[str, Any]], rows: int) -> Flow[list[float]]:
    """The loss of the incumbent under each of some edits, on the first `rows` of train."""
    flows = []
    for edit in edits:
        program = history.program.replace(edit)
        examples = probe(program, history.train, rows)
        flows.append(measured(program, examples, history.objective, history.calibrates))
    return [one.loss for one in (yield from together(flows))]


def ranked(history: History, edits: Sequence[Mapping[str, Any]], rows: int) -> Flow[list[Measured]]:
    """Edits of the incumbent by their loss on the first `rows` of train, best first."""
    found = yield from losses(history, edits, rows)
    return sorted(map(Measured, edits, found), key=lambda one: one.loss)


def _spread(train: Sequence[Example]) -> list[Example]:
    """Train in an order whose every beginning is spread evenly over the whole, by multiples of the golden ratio.

    So it does no harm where the file is sorted, by its answers for example.
    """
    places = sorted(range(len(train)), key=lambda number: number * _GOLDEN % 1)
    return [train[place] for place in places]
