"""The minibatch: executions on a few train rows that proposers learn from, failures among them.

All proposers of a round that look at the same program see the same rows, and what they ask for together is asked once.
"""

from engine.flows import Flow
from engine.optim.history import History
from engine.program.graph import Program
from engine.records import Trace

_ROWS = 24
_FAILURES = 4
_MOST_CHUNKS = 4


def minibatch(history: History, program: Program) -> Flow[list[Trace]]:
    """Executions of a program on the first rows this round has drawn.

    Where fewer than 4 fail, more rows are run (at most 96 in all) and their failures take the place of the last right
    ones: there is nothing to learn from a batch that is all correct (compare GEPA, which skips it; Agrawal 2025).
    """
    traces: list[Trace] = []
    for start in range(0, _ROWS * _MOST_CHUNKS, _ROWS):
        rows = history.drawn[start : start + _ROWS]
        if not rows or (start and start + len(rows) > history.allowance_calls):
            break
        traces += yield from history.objective.run(program, rows)
        if len(failures(traces)) >= _FAILURES:
            break
    wrong = failures(traces)
    right = [trace for trace in traces if trace.score >= 1.0][: max(0, _ROWS - len(wrong))]
    return [trace for trace in traces if any(trace is kept for kept in (*wrong, *right))]


def failures(traces: list[Trace]) -> list[Trace]:
    """Those that did not score full marks."""
    return [trace for trace in traces if trace.score < 1.0]
