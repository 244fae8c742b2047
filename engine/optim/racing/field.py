"""The field of a race: what every runner has seen so far, and how a heat is run.

Rows are counted in the order of the race. A heat is run row by row where rows do not depend on one another, so that as
few as possible are run in vain once a runner is called off.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from engine.errors import ContentError
from engine.feedback.losses import mean_loss
from engine.flows import Flow, together, while_useful
from engine.optim.racing.bar import Bar
from engine.optim.racing.heat import Heat
from engine.optim.racing.policy import Policy, Standing
from engine.program.graph import Program
from engine.program.recurrence import carries_state
from engine.records import Example, Trace

Run = Callable[[Program, Sequence[Example]], Flow[list[Trace]]]
Value = Callable[[Trace], float]


class _Leg(NamedTuple):
    """What is run as one: a runner on rows of the race from one to another. It may be its `first` in a heat."""

    runner: int
    start: int
    end: int
    first: bool


class Field:
    """Runners by number, with what they have seen."""

    def __init__(
        self,
        programs: Sequence[Program],
        dev: Sequence[Example],
        run: Run,
        value: Value,
        rng: Generator,
        bar: Bar | None,
        bounds: tuple[float, float],
    ) -> None:
        self._programs, self._dev, self._run, self._value, self._bounds = programs, dev, run, value, bounds
        self._at_once = any(map(carries_state, programs))
        self._order = list(range(len(dev))) if self._at_once else rng.permutation(len(dev)).tolist()
        self._bar = bar.in_order(self._order) if bar else None
        self._traces: list[list[Trace]] = [[] for _ in programs]
        self._values: list[list[float]] = [[] for _ in programs]
        self._out: set[int] = set()

    def further(self, policy: Policy, finish: bool) -> Mapping[int, int]:
        """How many rows more which runners see next."""
        if self._at_once:
            return {} if any(self._traces) else dict.fromkeys(range(len(self._programs)), len(self._dev))
        return policy.heat(self._standing(), finish)

    def heat(self, further: Mapping[int, int], policy: Policy) -> Flow[None]:
        """Run one heat and note what came of it."""
        heat = Heat(self._standing(), further, policy, self._bar)
        legs = [leg for runner, rows in further.items() for leg in self._legs(runner, rows)]
        flows = [self._flow(leg) for leg in legs]
        ended: dict[int, list[Trace]] = {}
        may_stop = {runner for runner in further if self._traces[runner]}
        gone: set[int] = set()

        def note(place: int, traces: list[Trace]) -> None:
            ended[place] = traces
            heat.see(legs[place].runner, legs[place].start, [self._worth(trace) for trace in traces])

        def out() -> set[int]:
            over = all(place in ended or leg.runner in gone for place, leg in enumerate(legs))
            return heat.out(self._losses(legs, ended, gone) if over else None)

        def called_off(place: int, traces: list[Trace]) -> list[int]:
            note(place, traces)
            gone.update(out() & may_stop)
            return [place for place, leg in enumerate(legs) if leg.runner in gone and not leg.first] if gone else []

        if may_stop:
            yield from while_useful(flows, called_off)
        else:
            for place, traces in enumerate((yield from together(flows))):
                note(place, traces)
        self._out |= out()
        for place, leg in enumerate(legs):
            if leg.runner not in gone:
                self._traces[leg.runner] += ended[place]
                self._values[leg.runner] += map(self._value, ended[place])

    def seen(self, runner: int) -> tuple[tuple[Trace, ...], tuple[float, ...]]:
        """What a runner has seen and what that is worth, in the order of dev."""
        rows = sorted(range(len(self._traces[runner])), key=self._order.__getitem__)
        traces, values = self._traces[runner], self._values[runner]
        return tuple(traces[row] for row in rows), tuple(values[row] for row in rows)

    def finished(self, runner: int) -> bool:
        """Whether it has seen all of dev."""
        return len(self._traces[runner]) == len(self._dev)

    def dropped(self, runner: int) -> bool:
        """Whether it has dropped out."""
        return runner in self._out

    def _losses(self, legs: Sequence[_Leg], ended: Mapping[int, list[Trace]], gone: set[int]) -> dict[int, float]:
        """The mean losses of the runners of a heat that have come to its end."""
        traces = {leg.runner: list(self._traces[leg.runner]) for leg in legs if leg.runner not in gone}
        for place, leg in enumerate(legs):
            if leg.runner in traces:
                traces[leg.runner] += ended[place]
        return {runner: mean_loss(found) for runner, found in traces.items()}

    def _standing(self) -> Standing:
        values = tuple(np.array(values, dtype=np.float64) for values in self._values)
        racing = tuple(number for number in range(len(self._programs)) if number not in self._out)
        return Standing(values, racing, len(self._dev), *self._bounds)

    def _legs(self, runner: int, rows: int) -> list[_Leg]:
        seen = len(self._traces[runner])
        if self._at_once:
            return [_Leg(runner, seen, seen + rows, True)]
        return [_Leg(runner, row, row + 1, row == seen) for row in range(seen, seen + rows)]

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
