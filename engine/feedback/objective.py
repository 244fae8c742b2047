"""The objective: how programs are executed and judged while they are optimized.

`run` executes a program and has judges look at what it did; `value` makes one number of an execution, higher is better:
the weighted sum of its score, of what judges found, and, to be lowered, of its cross-entropy and its cost. That number
is what a race compares and a gate tests. With the weights at their defaults it is the score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.feedback.judges import Judge
from engine.feedback.losses import cross_entropy, mean_loss
from engine.flows import Flow, keep, together
from engine.forward import forward
from engine.program.graph import Program
from engine.records import Example, Judgement, Remark, Trace
from engine.statistics import mean
from engine.tasks.metrics import Metric
from engine.tasks.schema import Loss

_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class Objective:
    """What is to be made better: by default the metric's score alone.

    `judge` looks at the answer, `steps` at what nodes gave, by the node's name.
    """

    metric: Metric
    weights: Loss = field(default_factory=Loss)
    judge: Judge | None = None
    steps: Mapping[str, Judge] = field(default_factory=dict)

    def run(self, program: Program, examples: Sequence[Example]) -> Flow[list[Trace]]:
        """Execute a program and judge what it did; traces come in the order of the examples."""
        traces = yield from forward(program, examples, self.metric)
        if self.judge is None and not self.steps:
            return traces
        return (yield from together([self._judged(program, trace) for trace in traces]))

    def value(self, trace: Trace) -> float:
        """How good one execution was; higher is better."""
        weights = self.weights
        answers = [one.value for one in trace.judgements if not one.node]
        steps = [one.value for one in trace.judgements if one.node]
        surprise = cross_entropy(trace) or 0.0
        gained = weights.metric * trace.score + weights.judge * mean(answers) + weights.steps * mean(steps)
        paid = weights.cross_entropy * surprise + weights.tokens * trace.tokens / _TOKENS
        value = gained - paid - (weights.seconds * trace.seconds if weights.seconds else 0.0)
        return max(self.least, value)

    @property
    def most(self) -> float:
        """What no execution's value can be above."""
        return self.weights.metric + self.weights.judge + self.weights.steps or 1.0

    @property
    def least(self) -> float:
        """What no execution's value can be below: costs count for at most as much as all that can be gained."""
        weights = self.weights
        return -self.most if weights.cross_entropy or weights.tokens or weights.seconds else 0.0

    def values(self, traces: Sequence[Trace]) -> list[float]:
        """`value` of each."""
        return [self.value(trace) for trace in traces]

    def mean(self, traces: Sequence[Trace]) -> float:
        """The mean value; 0 for no traces."""
        return mean(self.values(traces))

    def rank(self, traces: Sequence[Trace]) -> tuple[float, float]:
        """For sorting, best first: the mean value, then the loss, which still differs between equals."""
        return -self.mean(traces), mean_loss(traces)

    def _judged(self, program: Program, trace: Trace) -> Flow[Trace]:
        example, done = trace.example, {step.node: step for step in trace.steps}
        asked: list[Flow[Judgement]] = []
        if self.judge is not None:
            answer = {"answer": trace.prediction.text}
            asked.append(self.judge.judgement("", example.inputs, answer, example))
        for node, judge in self.steps.items():
            step = done.get(node)
            if step is None or step.error is not None:
                asked.append(_missing(node))
            else:
                asked.append(judge.judgement(node, step.inputs, step.outputs, example))
        judgements = tuple((yield from together(asked)))
        yield from keep(*(_remark(program, trace, judgement) for judgement in judgements))
        return replace(trace, judgements=judgements)


def _remark(program: Program, trace: Trace, judgement: Judgement) -> Remark:
    node = judgement.node or program.output_node.name
    return Remark(trace.program, trace.example, node, "judge", judgement.said or "as it should be", judgement.value)


def _missing(node: str) -> Flow[Judgement]:
    """Of a step that failed or was never reached."""
    yield from ()
    return Judgement(node, 0.0, "The step gave nothing.")
