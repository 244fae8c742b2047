"""What is looked at: a program with its rows and its metric."""

from dataclasses import dataclass

from engine.program.graph import Program
from engine.records import Example
from engine.tasks.metrics import METRICS, Metric


@dataclass(frozen=True, slots=True)
class Subject:
    """A program, the rows that it is to learn from and to be judged on, and how it is scored."""

    program: Program
    train: tuple[Example, ...]
    dev: tuple[Example, ...] = ()
    metric: Metric | None = None

    @property
    def rows(self) -> tuple[Example, ...]:
        """The rows of both, those of train first."""
        return (*self.train, *self.dev)

    @property
    def stock_metric(self) -> Metric | None:
        """The metric, where it comes with the library: one of the user's own may read what only an execution gives."""
        return self.metric if self.metric and METRICS.get(self.metric.name) is self.metric else None
