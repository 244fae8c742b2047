"""Narrowing: which of many proposals are best on train, measured within so many calls (successive halving).

All are measured on a few rows, the better half on twice as many, and so on (Karnin 2013; Jamieson & Talwalkar 2016).
Deviation: rows of an earlier stage are measured again with the later ones, since they cost nothing twice, and no stage
has fewer than 16 of them, on which a bias can still be fitted; where that leaves room for one stage only, there is one.
"""

import math
from collections.abc import Sequence

from engine.flows import Flow, together
from engine.optim.calibration import unseen
from engine.optim.history import Candidate, History, Proposal
from engine.optim.screening import measured
from engine.program.estimate import estimate, mean_sizes
from engine.program.layer import calls_of
from engine.records import Example

FEWEST_ROWS = 16


def narrowed(
    history: History, proposals: Sequence[Proposal], keep: int, calls: int, rows: Sequence[Example]
) -> Flow[list[Proposal]]:
    """The `keep` best by their loss on the first of `rows`, best first; no more than that are left as they are.

    Those that `calls` do not suffice to measure on 16 rows are let go, the last ones; where that leaves no more than
    `keep`, the first ones are kept unmeasured.
    """
    if len(proposals) <= keep:
        return list(proposals)
    each = max(calls_a_row(proposal.parent or history.incumbent, rows) for proposal in proposals)
    alive = list(proposals[: max(keep, calls // (each * FEWEST_ROWS))])
    if len(alive) == keep or not rows:
        return alive[:keep]
    stages = max(1, math.ceil(math.log2(len(alive) / keep)))
    while stages > 1 and calls // (stages * len(alive) * each) < FEWEST_ROWS:
        stages -= 1
    first = calls // (stages * len(alive) * each)
    for stage in range(stages):
        losses = yield from together([_loss(history, proposal, rows, first * 2**stage) for proposal in alive])
        ranked = sorted(range(len(alive)), key=lambda index: (losses[index], index))
        kept = keep if stage == stages - 1 else max(keep, len(alive) // 2)
        alive = [alive[index] for index in ranked[:kept]]
    return alive


def calls_a_row(candidate: Candidate, rows: Sequence[Example]) -> int:
    """The most calls that one example of a candidate takes: as seen on dev, or else as estimated."""
    if candidate.traces:
        return max(1, *(sum(len(calls_of(step)) for step in trace.steps) for trace in candidate.traces))
    return max(1, estimate(candidate.program, mean_sizes(rows)).calls)


def _loss(history: History, proposal: Proposal, rows: Sequence[Example], many: int) -> Flow[float]:
    program = (proposal.parent or history.incumbent).program.replace(proposal.edits)
    examples = unseen(program, rows)[:many]
    if not examples:
        return math.inf
    return (yield from measured(program, examples, history.objective, history.calibrates)).loss
