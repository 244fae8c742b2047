"""Calibration: a bias per label that makes a model's log-likelihoods decide well.

A small model prefers some labels whatever the example (Zhao 2021). The preference is measured on train examples that
are not in the prompt and taken off again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.flows import Flow
from engine.program.graph import Program
from engine.program.parameters import Bias, Demos
from engine.program.places import Place, places
from engine.records import Example, Trace

_RIDGE = 0.1
_NEWTON_STEPS = 25
_DECIMALS = 3


def biased(program: Program) -> dict[str, Place]:
    """The biases that act on the program's answer, by name, each with the closed choice that it belongs to.

    That is the output node, or parts of it whose answers it passes on, such as the voters of a vote.
    """
    return {
        f"{place.name}.bias": place
        for place in places(program)
        if place.answers and isinstance(place.parameters().get("bias"), Bias)
    }


def unseen(program: Program, examples: Sequence[Example]) -> list[Example]:
    """Examples that no demonstration of the program shows; a pool never shows an example itself."""
    shown = {
        tuple(sorted(demo.inputs.values()))
        for parameter in program.parameters.values()
        if isinstance(parameter, Demos) and not parameter.nearest
        for demo in parameter.value
    }
    return [example for example in examples if tuple(sorted(example.inputs.values())) not in shown]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A program with its biases fitted, and its mean loss on the same examples.

    With a bias on the output node the loss is the cross-entropy at the fitted slope: what the model knows, not how sure
    it sounds.
    """

    program: Program
    loss: float


def calibrated(program: Program, examples: Sequence[Example], objective: Objective) -> Flow[Calibrated]:
    """Run a program over examples and fit the biases of its answer to them, if it has any.

    A program whose parts have the biases is run again with them, for its loss; most of what that asks is known.
    """
    traces = yield from objective.run(program, examples)
    fitted: dict[str, tuple[float, ...]] = {}
    loss = None
    for name, place in biased(program).items():
        scored = _scored(place, traces)
        if scored is not None:
            bias, slope = fit_bias(*scored)
            bias = np.round(bias, _DECIMALS) + 0.0
            fitted[name] = tuple(map(float, bias))
            loss = _cross_entropy(*scored, bias, slope) if not place.path else None
    program = program.replace(fitted)
    if fitted and loss is None:
        traces = yield from objective.run(program, examples)
    return Calibrated(program, mean_loss(traces) if loss is None else loss)


def _scored(place: Place, traces: Sequence[Trace]) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Log-likelihoods (steps, labels) and the index of each accepted answer; None where nothing was scored."""
    parameter = place.parameters()["bias"]
    assert isinstance(parameter, Bias)  # biased() has seen to it
    rows, answers = [], []
    for trace in traces:
        accepted = [parameter.choices.index(answer) for answer in trace.example.accepted if answer in parameter.choices]
        for step in place.steps(trace.steps) if accepted else ():
            if step.loglikelihoods is not None:
                rows.append(step.loglikelihoods)
                answers.append(accepted[0])
    return (np.asarray(rows, dtype=np.float64), np.asarray(answers, dtype=np.int64)) if rows else None


def _cross_entropy(
    loglikelihoods: NDArray[np.float64], answers: NDArray[np.int64], bias: NDArray[np.float64], slope: float
) -> float:
    probabilities = _softmax(slope * (loglikelihoods + bias))[np.arange(len(answers)), answers]
    return float(-np.log(np.maximum(probabilities, 1e-9)).mean())


def fit_bias(loglikelihoods: NDArray[np.float64], answers: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """The bias (labels,) and slope for which softmax(slope * (loglikelihoods + bias)) fits the answers best.

    Log-likelihoods are (examples, labels) in nats, answers (examples,) label indices. Multinomial logistic regression
    with one shared slope, by damped Newton steps; it is convex in (slope, slope * bias). The slope absorbs
    overconfidence, so that the bias suits decisions rather than probabilities. Ridge 0.1 on the intercepts keeps a
    label that is rare or absent in train from being ruled out.
    """
    labels = loglikelihoods.shape[1]
    centred = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    hit = np.eye(labels)[answers]
    slope, intercept = 1.0, np.zeros(labels)
    for _ in range(_NEWTON_STEPS):
        probabilities = _softmax(slope * centred + intercept)
        residual = probabilities - hit
        gradient = np.concatenate([[(residual * centred).sum()], residual.sum(axis=0) + _RIDGE * intercept])
        weighted = probabilities * centred
        spread = weighted - probabilities * weighted.sum(axis=1, keepdims=True)
        hessian = np.empty((labels + 1, labels + 1))
        hessian[0, 0] = (spread * centred).sum()
        hessian[0, 1:] = hessian[1:, 0] = spread.sum(axis=0)
        hessian[1:, 1:] = np.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities
        hessian += _RIDGE * np.eye(labels + 1)
        step = np.linalg.solve(hessian, gradient)
        step /= max(1.0, float(np.abs(step).max()) / 2.0)
        slope, intercept = slope - step[0], intercept - step[1:]
        if np.abs(step).max() < 1e-6:
            break
    slope = max(float(slope), 0.05)
    bias = intercept / slope
    return bias - bias.mean(), slope


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities
