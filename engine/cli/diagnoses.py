"""Why executions in a store failed: their programs are read back, and their traces tell what went wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import ContentError
from engine.feedback.diagnosis import diagnose, has_failed
from engine.feedback.failures import Cluster, clustered
from engine.feedback.remarks import failure_of
from engine.program.graph import Program
from engine.program.layer import calls_of
from engine.records import Remark, Trace
from engine.store.store import Store
from engine.store.traces import TraceRow


@dataclass(frozen=True, slots=True)
class Failures:
    """Clusters of failed executions with the names of their traces, by `id()`; `unknown` ones have no known program."""

    clusters: Sequence[Cluster]
    ids: Mapping[int, str]
    unknown: int

    @property
    def count(self) -> int:
        """How many executions failed."""
        return sum(cluster.count for cluster in self.clusters) + self.unknown


def failures_in(store: Store, rows: Sequence[TraceRow]) -> Failures:
    """The failures among stored executions, of whatever programs."""
    programs = {name: _program(store, name) for name in {row.trace.program for row in rows}}
    failed = [row for row in rows if has_failed(row.trace)]
    cut = store.cut_off(_calls([row.trace for row in failed]))
    diagnosed = [
        (diagnose(program, row.trace, cut), row.trace)
        for row in failed
        if (program := programs[row.trace.program]) is not None
    ]
    return Failures(clustered(diagnosed), {id(row.trace): row.id for row in rows}, len(failed) - len(diagnosed))


def remarks_on(store: Store, row: TraceRow) -> list[Remark]:
    """What feedback said about an execution, and how it failed if it did.

    Where the program is known that is told anew: which replies were cut off stands in the store alone.
    """
    said = store.remarks(row.id)
    program = _program(store, row.trace.program) if has_failed(row.trace) else None
    if program is None:
        return said
    failure = failure_of(program, row.trace, store.cut_off(_calls([row.trace])))
    return [failure, *(remark for remark in said if remark.kind != "failure")]


def _calls(traces: Sequence[Trace]) -> list[str]:
    return [key for trace in traces for step in trace.steps for key in calls_of(step)]


def _program(store: Store, fingerprint: str) -> Program | None:
    """A program that the store remembers; None also where a layer in it is nobody's that is known."""
    mapping = store.program(fingerprint)
    try:
        return Program.from_mapping(mapping) if mapping else None
    except ContentError:
        return None
