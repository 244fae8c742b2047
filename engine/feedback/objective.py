"""The objective: how programs are executed and judged while they are optimized.

`value` is what a race compares and a gate tests: one number an example, higher is better. `run` executes a program and
leaves whatever `value` needs in the traces.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.feedback.losses import mean_loss
from engine.flows import Flow
from engine.forward import forward
from engine.program.graph import Program
from engine.records import Example, Trace
from engine.statistics import mean
from engine.tasks.metrics import Metric


@dataclass(frozen=True, slots=True)
class Objective:
    """What is to be made better: the metric's score."""

    metric: Metric

    def run(self, program: Program, examples: Sequence[Example]) -> Flow[list[Trace]]:
        """Execute a program; traces come in the order of the examples."""
        return (yield from forward(program, examples, self.metric))

    def value(self, trace: Trace) -> float:
        """How good one execution was; higher is better."""
        return trace.score

    def values(self, traces: Sequence[Trace]) -> list[float]:
        """`value` of each."""
        return [self.value(trace) for trace in traces]

    def mean(self, traces: Sequence[Trace]) -> float:
        """The mean value; 0 for no traces."""
        return mean(self.values(traces))

    def rank(self, traces: Sequence[Trace]) -> tuple[float, float]:
        """For sorting, best first: the mean value, then the loss, which still differs between equals."""
        return -self.mean(traces), mean_loss(traces)
