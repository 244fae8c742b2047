"""Races: candidates run on the same dev examples, those drop out that cannot win, and the calls of those are cancelled.

A race goes in heats, as its policy says. Rows come in an order drawn for the race, so that what comes first is a fair
sample of all. While a heat is on, a runner whose fate no further row of it can change is called off at once. That
changes no decision: it would drop out at the end of the heat in any case, nobody else's fate depends on its rows, and
one that drops out is recorded with the rows of the heats before, whether it was called off or not. The first heat is
for everybody, so that every runner has a figure; of a later heat everybody sees one row, by which the rest is charged.

Programs that carry state across examples run over all of dev at once, in its own order, as the incumbent did: after a
break their state would begin anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from engine.errors import ContentError
from engine.feedback.losses import mean_loss
from engine.flows import Flow, while_useful
from engine.optim.racing.bar import Bar
from engine.optim.racing.heat import Heat
from engine.optim.racing.policy import Policy, Standing
from engine.program.graph import Program
from engine.program.recurrence import carries_state
from engine.records import Example, Trace
from engine.statistics import mean

Run = Callable[[Program, Sequence[Example]], Flow[list[Trace]]]
Value = Callable[[Trace], float]


@dataclass(frozen=True, slots=True)
class Runner:
    """A program in a race, with its traces so far and what each is worth, in the order of dev.

    `finished` runners have seen all of dev; those that `dropped` out see no more.
    """

    program: Program
    traces: tuple[Trace, ...] = ()
    values: tuple[float, ...] = ()
    finished: bool = False
    dropped: bool = False

    @property
    def scores(self) -> list[float]:
        """One score an example."""
        return [trace.score for trace in self.traces]

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better: mean value first, then the loss."""
        return -mean(self.values), mean_loss(self.traces)


def race(
    programs: Sequence[Program],
    dev: Sequence[Example],
    run: Run,
    value: Value,
    policy: Policy,
    rng: Generator,
    bar: Bar | None = None,
    *,
    finish: bool = True,
    least: float = 0.0,
    most: float = 1.0,
) -> Flow[list[Runner]]:
    """Race programs over dev. Returns a runner for each, in the order given.

    `run` executes a program on examples, `value` says what a trace is worth, higher being better, from `least` to
    `most`. The winner is the `best` of those that did not drop out; with `finish` it has seen all of dev. Where
    there is a `bar` there may be no winner.

    Raises:
        ContentError: a value that is not between `least` and `most`.
    """
    field = _Field(programs, dev, run, value, rng, (least, most))
    while further := field.further(policy, finish):
        yield from field.heat(further, policy, bar)
    return field.runners()


def best_finished(runners: Sequence[Runner]) -> int | None:
    """Which runner won a race to the finish, the earlier on a tie; None where none of them came there."""
    return _best(runners, [number for number, runner in enumerate(runners) if runner.finished and not runner.dropped])


def best(runners: Sequence[Runner]) -> int | None:
    """Which runner would win: the best of those that did not drop out, finished or not; None where all of them did."""
    return _best(runners, [number for number, runner in enumerate(runners) if not runner.dropped])


def _best(runners: Sequence[Runner], among: Sequence[int]) -> int | None:
    return min(among, key=lambda number: (runners[number].rank, number), default=None)


class _Leg(NamedTuple):
    """What is run as one: a runner on rows of the race from one to another."""

    runner: int
    start: int
    end: int


class _Field:
    """The runners of one race, with what they have seen. Rows are counted in the order of the race."""

    def __init__(
        self,
        programs: Sequence[Program],
        dev: Sequence[Example],
        run: Run,
        value: Value,
        rng: Generator,
        bounds: tuple[float, float],
    ) -> None:
        self._programs, self._dev, self._run, self._value, self._bounds = programs, dev, run, value, bounds
        self._at_once = any(map(carries_state, programs))
        self._order = list(range(len(dev))) if self._at_once else rng.permutation(len(dev)).tolist()
        self._traces: list[list[Trace]] = [[] for _ in programs]
        self._values: list[list[float]] = [[] for _ in programs]
        self._out: set[int] = set()

    def further(self, policy: Policy, finish: bool) -> Mapping[int, int]:
        """How many rows more which runners see next."""
        if self._at_once:
            return {} if any(self._traces) else dict.fromkeys(range(len(self._programs)), len(self._dev))
        return policy.heat(self._standing(), finish)

    def heat(self, further: Mapping[int, int], policy: Policy, bar: Bar | None) -> Flow[None]:
        """Run one heat and note what came of it."""
        heat = Heat(self._standing(), further, policy, bar.in_order(self._order) if bar else None)
        legs = [leg for runner, rows in further.items() for leg in self._legs(runner, rows)]
        later = [place for place in range(1, len(legs)) if legs[place].runner == legs[place - 1].runner]
        may_stop = {runner for runner in further if self._traces[runner]}
        ended: dict[int, list[Trace]] = {}
        gone: set[int] = set()

        def out() -> set[int]:
            over = all(place in ended or leg.runner in gone for place, leg in enumerate(legs))
            return heat.out(self._losses(legs, ended, gone) if over else None)

        def called_off(place: int, traces: list[Trace]) -> list[int]:
            ended[place] = traces
            heat.see(legs[place].runner, legs[place].start, [self._worth(trace) for trace in traces])
            gone.update(out() & may_stop if may_stop else ())
            return [place for place in later if legs[place].runner in gone] if gone else []

        yield from while_useful([self._flow(leg) for leg in legs], called_off)
        self._out |= out()
        for place, leg in enumerate(legs):
            if leg.runner not in gone:
                self._traces[leg.runner] += ended[place]
                self._values[leg.runner] += map(self._value, ended[place])

    def _losses(self, legs: Sequence[_Leg], ended: Mapping[int, list[Trace]], gone: set[int]) -> dict[int, float]:
        """The mean losses of the runners of a heat that have come to its end."""
        traces = {leg.runner: list(self._traces[leg.runner]) for leg in legs if leg.runner not in gone}
        for place, leg in enumerate(legs):
            if leg.runner in traces:
                traces[leg.runner] += ended[place]
        return {runner: mean_loss(found) for runner, found in traces.items()}

    def runners(self) -> list[Runner]:
        """The runners as they stand."""
        return [self._runner(number, program) for number, program in enumerate(self._programs)]

    def _runner(self, number: int, program: Program) -> Runner:
        rows = sorted(range(len(self._traces[number])), key=self._order.__getitem__)
        traces = tuple(self._traces[number][row] for row in rows)
        values = tuple(self._values[number][row] for row in rows)
        return Runner(program, traces, values, len(rows) == len(self._dev), number in self._out)

    def _standing(self) -> Standing:
        values = tuple(np.array(values, dtype=np.float64) for values in self._values)
        racing = tuple(number for number in range(len(self._programs)) if number not in self._out)
        return Standing(values, racing, len(self._dev), *self._bounds)

    def _legs(self, runner: int, rows: int) -> list[_Leg]:
        """Row by row where rows do not depend on one another, so that as few as possible are run in vain."""
        seen = len(self._traces[runner])
        if self._at_once:
            return [_Leg(runner, seen, seen + rows)]
        return [_Leg(runner, row, row + 1) for row in range(seen, seen + rows)]

    def _flow(self, leg: _Leg) -> Flow[list[Trace]]:
        return self._run(self._programs[leg.runner], [self._dev[row] for row in self._order[leg.start : leg.end]])

    def _worth(self, trace: Trace) -> float:
        worth, (least, most) = self._value(trace), self._bounds
        if not least <= worth <= most:
            raise ContentError(
                f"example {trace.example.id} is worth {worth:g} to the race, expected {least:g} to {most:g}: "
                "give the race the bounds of its values"
            )
        return worth
