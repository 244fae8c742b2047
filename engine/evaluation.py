"""Evaluation: a program over a split, as a figure with its interval, what it cost, and what it got wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ContentError
from engine.forward import forward
from engine.inference.runtime import Runtime, Watch
from engine.inference.usage import Usage
from engine.program.graph import Program
from engine.program.parameters import Bias
from engine.records import Example, Trace
from engine.statistics import mean_interval
from engine.tasks.metrics import Metric

_DRAWS = 500


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one evaluation. `outside` counts examples none of whose accepted answers is a choice."""

    score: float
    interval: tuple[float, float]
    traces: tuple[Trace, ...]
    usage: Usage
    failed: int
    outside: int

    @property
    def n(self) -> int:
        """How many examples were scored."""
        return len(self.traces)

    def confusion(self) -> dict[str, dict[str, int]] | None:
        """Counts by expected and predicted label; None for open text. A failed execution counts under its error."""
        if not any(trace.prediction.probabilities for trace in self.traces):
            return None
        table: dict[str, dict[str, int]] = {}
        for trace in self.traces:
            row = table.setdefault(trace.example.target or "", {})
            predicted = "(failed)" if trace.prediction.error else trace.prediction.text
            row[predicted] = row.get(predicted, 0) + 1
        return table


def evaluate(
    program: Program,
    examples: Sequence[Example],
    metric: Metric,
    runtime: Runtime,
    run: str = "",
    watch: Watch | None = None,
) -> Evaluation:
    """Run a program over examples and score it. The store remembers the program, to read its traces by.

    Raises:
        ContentError: not one example could be answered.
    """
    before = runtime.usage.copy()
    runtime.store.put_program(program.fingerprint, program.to_mapping())
    traces = runtime.run(forward(program, examples, metric), run=run, watch=watch)
    failed = sum(trace.prediction.error is not None for trace in traces)
    if traces and failed == len(traces):
        raise ContentError(
            f"not one of {failed} examples could be answered (localgrad trace list --failed); "
            f"the first failed with: {traces[0].prediction.error}"
        )
    score, interval = figure_of(traces, metric)
    return Evaluation(score, interval, tuple(traces), runtime.usage.since(before), failed, _outside(program, examples))


def figure_of(traces: Sequence[Trace], metric: Metric) -> tuple[float, tuple[float, float]]:
    """The metric's figure over traces and its 95% interval: Wilson for 0/1 means, else a bootstrap over examples."""
    scores = [trace.score for trace in traces]
    figure = metric.figure(scores, [t.prediction for t in traces], [t.example for t in traces])
    if metric.name != "macro_f1":
        return figure, mean_interval(scores)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        picked = [traces[int(index)] for index in random.integers(0, len(traces), len(traces))]
        drawn.append(metric.figure([], [t.prediction for t in picked], [t.example for t in picked]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure, (float(low), float(high))


def prediction_row(trace: Trace) -> Mapping[str, Any]:
    """One prediction as plain data, for a file of rows."""
    return {
        "id": trace.example.id,
        "inputs": dict(trace.example.inputs),
        "accepted": list(trace.example.accepted),
        "prediction": trace.prediction.text,
        "outputs": dict(trace.prediction.outputs),
        "probabilities": dict(trace.prediction.probabilities) if trace.prediction.probabilities else None,
        "score": trace.score,
        "error": trace.prediction.error,
    }


def _outside(program: Program, examples: Sequence[Example]) -> int:
    bias = program.parameters.get(f"{program.output_node.name}.bias")
    if not isinstance(bias, Bias):
        return 0
    return sum(not set(example.accepted) & set(bias.choices) for example in examples if example.accepted)
