"""Failures: the executions that went wrong, in clusters of those that went wrong alike, the largest first.

A cluster says in one line what is the matter, for a person or for the prompt of an optimizer.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from engine.feedback.diagnosis import Diagnosis, Kind, diagnose, has_failed
from engine.program.event import one_line
from engine.program.graph import Program
from engine.records import Trace

_CHARS = 80  # of an answer in a description


@dataclass(frozen=True, slots=True)
class Cluster:
    """Executions that went wrong in the same way at the same node. `kind` and `label` are those of `Diagnosis`."""

    node: str
    kind: Kind
    label: str
    traces: tuple[Trace, ...]

    @property
    def count(self) -> int:
        """How many executions there are."""
        return len(self.traces)

    @property
    def examples(self) -> tuple[str, ...]:
        """The ids of the examples, each once, in the order of the executions."""
        return tuple(dict.fromkeys(trace.example.id for trace in self.traces))

    @property
    def description(self) -> str:
        """One line: the node, how often, and what went wrong, with an example where there are answers."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.node} ({times}): {self._what()}"

    def _what(self) -> str:
        first = self.traces[0]
        gave, right = _quoted(first.prediction.text), _quoted(first.example.target or "another answer")
        match self.kind, self.label:
            case "wrong label", _:
                return f"it chose {gave} where {right} is right"
            case "unsure", _:
                return f"it chose {gave}, which is right, without being sure of it"
            case "wrong answer", "empty":
                return f"it wrote nothing, such as where {right} is right"
            case "wrong answer", "too long":
                return f"it wrote more than the answer, such as {gave} where {right} is right"
            case "wrong answer", _:
                return f"it gave a wrong answer, such as {gave} where {right} is right"
            case "retrieval miss", _:
                return f"no passage that it found holds the right answer, such as {right}"
            case "truncated", _:
                return "its reply was cut off before its end"
            case "unparsed", _:
                return f"its reply could not be read: {self.label}"
            case _:
                return f"it failed: {self.label}"


def failures(program: Program, traces: Sequence[Trace], cut: Collection[str] = ()) -> list[Cluster]:
    """The failed ones of a program's executions, clustered by node, kind and label.

    The largest cluster comes first, of equals in alphabetical order; the traces of each keep their order. What `cut`
    is says `diagnose`.
    """
    return clustered((diagnose(program, trace, cut), trace) for trace in traces if has_failed(trace))


def clustered(diagnosed: Iterable[tuple[Diagnosis, Trace]]) -> list[Cluster]:
    """Clusters of failed executions, which may be of several programs, each with what went wrong in it."""
    groups: dict[Diagnosis, list[Trace]] = {}
    for diagnosis, trace in diagnosed:
        groups.setdefault(diagnosis, []).append(trace)
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [Cluster(found.node, found.kind, found.label, tuple(traces)) for found, traces in ranked]


def summary(clusters: Sequence[Cluster], most: int = 5) -> str:
    """The largest clusters, a line each, and a line on how much was left out; empty without clusters."""
    lines = [f"- {cluster.description}" for cluster in clusters[:most]]
    rest = clusters[most:]
    if rest:
        lines.append(f"- and {sum(cluster.count for cluster in rest)} more, of {len(rest)} other kinds")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return f'"{one_line(text, _CHARS)}"'
