"""bootstrap_demos: what the program did where it was right as demonstrations for all its places (Khattab 2023).

DSPy's BootstrapFewShot: train rows are run, and the executions that score full marks are shown, so that places between
the inputs and the answer get demonstrations that nobody has labelled. Rows that fail are run again, with everything
that samples at a high temperature. Deviations: rows are run side by side instead of one after another until there are
enough, and sets are proposed in several sizes, balanced over the answers.
"""

from collections.abc import Mapping

from numpy.random import Generator

from engine.flows import Flow, together, varied
from engine.optim.demonstrations import described, from_traces, shown, sized
from engine.optim.history import History, Proposal
from engine.optim.screening import showable
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.parameters import Number
from engine.records import Trace

_SIZES = (8, 4, 2)
_RERUNS = 2
_HOT = 1.0
_MOST_ROWS = 48


class BootstrapDemosProposer:
    """Proposes a set of each size."""

    name = "bootstrap_demos"
    prior = 0.1

    def suits(self, program: Program) -> bool:
        """Whether a place takes demonstrations."""
        return bool(shown(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The sets, the largest first."""
        program = history.program
        solved = from_traces(program, (yield from _executions(history)))
        sets = sized(program, solved, _SIZES, rng)
        return [Proposal(edits, f"bootstrapped {described(edits)}") for edits in sets]


def _executions(history: History) -> Flow[list[Trace]]:
    """The best execution of each of some train rows, the failed ones run again."""
    program, objective = history.program, history.objective
    hot = _hot(program)
    each = max(1, estimate(program, {}).calls) * (1 + (_RERUNS if hot else 0))
    rows = showable(history.train)[: min(_MOST_ROWS, history.allowance_calls // each)]
    best: dict[str, Trace] = {trace.example.id: trace for trace in (yield from objective.run(program, rows))}
    failed = [trace.example for trace in best.values() if trace.score < 1.0]
    if hot and failed:
        heated = program.replace(hot)
        again = [varied(objective.run(heated, failed), number) for number in range(_RERUNS)]
        for traces in (yield from together(again)):
            best |= {trace.example.id: trace for trace in traces if trace.score > best[trace.example.id].score}
    return list(best.values())


def _hot(program: Program) -> Mapping[str, float]:
    """Edits that raise every temperature; none where nothing samples."""
    return {
        name: max(_HOT, value.value)
        for name, value in program.parameters.items()
        if isinstance(value, Number) and name.split(".")[-1] == "temperature"
    }
