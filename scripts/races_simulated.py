"""Races without a model: the real race, the real acceptance test, and scores that are known beforehand.

`raced` runs a policy on a matrix of scores. `null_figures` simulates whole runs where no candidate is better than
the incumbent.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.flows import Flow, Together, Watched
from engine.optim.acceptance import judge, levels_of
from engine.optim.racing import Bar, Policy, best_finished, race
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Example, Prediction, Trace
from engine.statistics import mean

Scores = NDArray[np.float64]

_NEAR = 0.01
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Finish:
    """How a race ended: its winner, None where the bar let nobody through, who dropped out, and what it took."""

    winner: int | None
    dropped: tuple[int, ...]
    executions: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of many races: how often the winner was the best, or within a point of it, and the share of all executions.

    `behind` is by how much another winner was worse than the best, on average.
    """

    same: float
    near: float
    share: float
    behind: float


def raced(
    scores: Scores,
    losses: Scores | None,
    policy: Policy,
    rng: Generator,
    bar: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Finish:
    """Race programs by their scores (programs, rows) and, for ties, losses in nats; `bar` is values and levels."""
    programs, dev = _programs(len(scores)), _examples(scores.shape[1])
    number = {id(program): place for place, program in enumerate(programs)}
    executions = 0

    def run(program: Program, examples: Sequence[Example]) -> Flow[list[Trace]]:
        nonlocal executions
        yield from ()
        executions += len(examples)
        place = number[id(program)]
        return [_trace(example, scores[place], None if losses is None else losses[place]) for example in examples]

    held = Bar(tuple(bar[0]), tuple(bar[1])) if bar else None
    runners = _driven(race(programs, dev, run, lambda trace: trace.score, policy, rng, held))
    dropped = tuple(number for number, runner in enumerate(runners) if runner.dropped)
    return Finish(best_finished(runners), dropped, executions)


def figures(
    scores: Scores, losses: Scores | None, policy: Policy, runners: int, seeds: Sequence[int], rows: int | None = None
) -> Figures:
    """A race for each seed, of some of the programs on some of the rows, by default on all."""
    behind, shares = [], []
    for seed in seeds:
        rng = np.random.default_rng((seed, runners))
        drawn = np.ix_(rng.permutation(len(scores))[:runners], rng.permutation(scores.shape[1])[:rows])
        finish = raced(scores[drawn], None if losses is None else losses[drawn], policy, rng)
        assert finish.winner is not None  # there is no bar
        means = scores[drawn].mean(axis=1)
        behind.append(float(means.max() - means[finish.winner]))
        shares.append(finish.executions / scores[drawn].size)
    missed = [by for by in behind if by > _SLACK]
    near = mean([by <= _NEAR + _SLACK for by in behind])
    return Figures(1 - len(missed) / len(behind), near, mean(shares), mean(missed))


@dataclass(frozen=True, slots=True)
class NullFigures:
    """Of runs in which nothing is better: how many accept something, and the share of all executions a race takes."""

    accepted: float
    share: float


def null_figures(
    policy: Policy, runs: int, discordant: float, rng: Generator, *, rows: int = 100, rounds: int = 5, raced_by: int = 6
) -> NullFigures:
    """Simulate runs in which no candidate is better than the incumbent; each ends with what it accepts.

    A candidate differs from the incumbent on a row with the chance `discordant`, in either direction alike; the
    incumbent is right on half of the rows.
    """
    wrong, races, executions = 0, 0, 0
    for _ in range(runs):
        incumbent = (rng.random(rows) < 0.5).astype(np.float64)
        for round in range(1, rounds + 1):
            other = rng.random((raced_by, rows)) < discordant
            field = np.where(other, 1.0 - incumbent, incumbent)
            levels = levels_of(round, raced_by)
            finish = raced(field, None, policy, rng, (incumbent.tolist(), levels))
            races, executions = races + 1, executions + finish.executions
            if finish.winner is None:
                continue
            values = field[finish.winner].tolist(), incumbent.tolist(), incumbent.tolist()
            if judge(*values, levels[finish.winner], rng).accepted:
                wrong += 1
                break
    return NullFigures(wrong / runs, executions / (races * raced_by * rows))


def _driven(flow: Flow[list]) -> list:  # type: ignore[type-arg]
    """Drive a flow that asks nothing: what it runs side by side ends in its order, unless it was given up before."""
    result: list[object] = []
    started = False
    while True:
        try:
            effect = flow.send(result if started else None)
        except StopIteration as stop:
            found: list = stop.value  # type: ignore[type-arg]
            return found
        assert isinstance(effect, Together | Watched)  # these flows ask nothing and keep nothing
        started, gone = True, set[int]()
        results: list[Any] = [None] * len(effect.flows)
        for place, child in enumerate(effect.flows):
            if place not in gone:
                results[place] = _driven(child)
                gone.update(effect.drop(place, results[place]) if isinstance(effect, Watched) else ())
        result = [None if place in gone else found for place, found in enumerate(results)]


@functools.cache
def _programs(count: int) -> list[Program]:
    text = Input("text")
    return [Program(Predict(f"number {number}", output="answer")(text)) for number in range(count)]


@functools.cache
def _examples(count: int) -> list[Example]:
    return [Example(str(row), {"text": ""}, ("yes",)) for row in range(count)]


def _trace(example: Example, scores: Scores, losses: Scores | None) -> Trace:
    row = int(example.id)
    known = None if losses is None else {"yes": float(np.exp(-losses[row]))}
    return Trace("", example, (), Prediction("", probabilities=known), float(scores[row]))
