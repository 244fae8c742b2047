"""Races: candidates run on the same dev examples, those drop out that cannot win, and the calls of those are cancelled.

A race goes in heats, as its policy says. Rows come in an order drawn for the race, so that what comes first is a fair
sample of all. While a heat is on, a runner whose fate no further row of it can change is called off at once. That
changes no decision: it would drop out at the end of the heat in any case, nobody else's fate depends on its rows, and
one that drops out is recorded with the rows of the heats before, whether it was called off or not. The first heat is
for everybody, so that every runner has a figure; of a later heat everybody sees one row, by which the rest is charged.

Programs that carry state across examples run over all of dev at once, in its own order, as the incumbent did: after a
break their state would begin anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.losses import mean_loss
from engine.flows import Flow
from engine.optim.racing.bar import Bar
from engine.optim.racing.field import Field, Run, Value
from engine.optim.racing.policy import Policy
from engine.program.graph import Program
from engine.records import Example, Trace
from engine.statistics import mean


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
    field = Field(programs, dev, run, value, rng, bar, (least, most))
    while further := field.further(policy, finish):
        yield from field.heat(further, policy)
    return [
        Runner(program, *field.seen(number), field.finished(number), field.dropped(number))
        for number, program in enumerate(programs)
    ]


def best_finished(runners: Sequence[Runner]) -> int | None:
    """Which runner won a race to the finish, the earlier on a tie; None where none of them came there."""
    return _best(runners, [number for number, runner in enumerate(runners) if runner.finished and not runner.dropped])


def best(runners: Sequence[Runner]) -> int | None:
    """Which runner would win: the best of those that did not drop out, finished or not; None where all of them did."""
    return _best(runners, [number for number, runner in enumerate(runners) if not runner.dropped])


def _best(runners: Sequence[Runner], among: Sequence[int]) -> int | None:
    return min(among, key=lambda number: (runners[number].rank, number), default=None)
