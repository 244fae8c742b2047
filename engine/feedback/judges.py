"""Judges: what else can be said of an answer, or of any step on the way to it, than whether the end was right.

Three kinds: a model that is asked yes/no questions (a rubric), a metric, a function of the user's own. Judging steps
and not only outcomes is process supervision (Lightman 2023; in workflows, the survey arXiv 2410.16392, section 5.1).

A model's verdict is a likelihood, never a text: log-odds of yes against no. It is calibrated, since a model is inclined
to one of them whatever it sees: what it says of nothing is taken off (Zhao 2021, section 5), or a line is fitted that
tells right answers of train from wrong ones (Platt 1999).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from engine.flows import Flow, together
from engine.program.preference import rightness
from engine.records import Example, Judgement, Prediction
from engine.statistics import mean
from engine.tasks.metrics import Metric

Verdict = float | tuple[float, str]
UserJudge = Callable[[Mapping[str, str], Mapping[str, str], Example], Verdict]

_NOTHING = "N/A"
_NEWTON_STEPS = 25
_RIDGE = 1.0


class Judge(Protocol):
    """Judges what was made of some inputs. `outputs` has the main one last."""

    def judgement(
        self, node: str, inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example
    ) -> Flow[Judgement]:
        """A value from 0 to 1, and what speaks against more."""


@dataclass(frozen=True, slots=True)
class Line:
    """Log-odds as a model gives them, put right: `slope` times them plus `offset`, in nats."""

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, log_odds: float) -> float:
        """The calibrated probability of yes."""
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, self.slope * log_odds + self.offset))))


@dataclass(frozen=True, slots=True)
class Rubric:
    """Questions for a model; the value is the mean probability of yes. A question that gets no answer counts as no."""

    questions: tuple[str, ...]
    lines: tuple[Line, ...] = ()

    def judgement(
        self, node: str, inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example
    ) -> Flow[Judgement]:
        found = yield from self._log_odds({**inputs, **outputs})
        lines = self.lines or (Line(),) * len(self.questions)
        values = [0.0 if odds is None else line.probability(odds) for odds, line in zip(found, lines, strict=True)]
        wrong = [question for question, value in zip(self.questions, values, strict=True) if value < 0.5]
        return Judgement(node, mean(values), " ".join(f'The answer to "{question}" is no.' for question in wrong))

    def calibrated_on_nothing(self, inputs: Sequence[str], output: str) -> "Flow[Rubric]":
        """The rubric less what the model says of blank fields."""
        found = yield from self._log_odds({**dict.fromkeys(inputs, _NOTHING), output: _NOTHING})
        return replace(self, lines=tuple(Line(offset=-(odds or 0.0)) for odds in found))

    def calibrated_on_answers(self, examples: Sequence[Example], output: str) -> "Flow[Rubric]":
        """The rubric with a line each that tells the examples' right answers from those of other examples.

        Half of what is looked at is right. Two calls an example and question; as it was where no example has answers.
        """
        pairs = [(example, answer, right) for example, answer, right in _right_and_wrong(examples)]
        if not pairs:
            return self
        asked = [self._log_odds({**example.inputs, output: answer}) for example, answer, _ in pairs]
        found = yield from together(asked)
        right = [is_right for _, _, is_right in pairs]
        return replace(self, lines=tuple(fit_line(column, right) for column in zip(*found, strict=True)))

    def _log_odds(self, shown: Mapping[str, str]) -> Flow[list[float | None]]:
        judged = yield from together([rightness(shown, question, role="optimizer") for question in self.questions])
        return [one.log_odds for one in judged]


@dataclass(frozen=True, slots=True)
class ByMetric:
    """A metric of what a step gave against the example's accepted answers, such as `contains` for passages."""

    metric: Metric

    def judgement(
        self, node: str, inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example
    ) -> Flow[Judgement]:
        yield from ()
        text = list(outputs.values())[-1] if outputs else ""
        value = self.metric.score(Prediction(text, outputs), example)
        return Judgement(node, value, f"It scored {value:.2f} by {self.metric.name}." if value < 1.0 else "")


@dataclass(frozen=True, slots=True)
class ByFunction:
    """A function of the user's own: `judge(inputs, outputs, example)` gives a value, or a value and why."""

    function: UserJudge
    name: str

    def judgement(
        self, node: str, inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example
    ) -> Flow[Judgement]:
        yield from ()
        found = self.function(dict(inputs), dict(outputs), example)
        value, said = found if isinstance(found, tuple) else (found, "")
        value = float(value)
        return Judgement(node, value, said or (f"{self.name} gave {value:.2f}." if value < 1.0 else ""))


def fit_line(log_odds: Sequence[float | None], right: Sequence[bool]) -> Line:
    """The line for which its probabilities fit what is right best: logistic regression, by Newton steps.

    A ridge of 1 keeps the slope finite where log-odds tell right from wrong without a mistake. A model that prefers
    what is wrong gets a negative slope.
    """
    known = [(value, float(is_right)) for value, is_right in zip(log_odds, right, strict=True) if value is not None]
    if not known:
        return Line()
    values, hits = np.array([value for value, _ in known]), np.array([hit for _, hit in known])
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    features = np.stack([(values - centre) / spread, np.ones_like(values)], axis=1)
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(features @ weights, -50, 50)))
        gradient = features.T @ (probability - hits) + _RIDGE * weights
        hessian = (features * (probability * (1 - probability))[:, None]).T @ features + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    slope = float(weights[0]) / spread
    return Line(slope, float(weights[1]) - slope * centre)


def _right_and_wrong(examples: Sequence[Example]) -> list[tuple[Example, str, bool]]:
    """Each example with its target and with the target of the next example that is wrong for it."""
    targets = [example.target for example in examples]
    pairs: list[tuple[Example, str, bool]] = []
    for index, example in enumerate(examples):
        later = (*targets[index + 1 :], *targets[:index])
        wrong = next((other for other in later if other is not None and other not in example.accepted), None)
        if example.target is not None and wrong is not None:
            pairs += [(example, example.target, True), (example, wrong, False)]
    return pairs
