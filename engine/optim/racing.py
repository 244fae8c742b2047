"""Races: candidates run on the same dev examples, block by block, and those that the leader clearly beats drop out.

After each block every runner is compared with the leader on the examples seen so far by a one-sided paired permutation
test; it drops out below 0.1 (the idea of F-Race, Birattari 2002, with a permutation test in place of Friedman's). The
bound only saves work: acceptance is decided later, on all of dev, by a stricter test.

Programs that carry state across examples run over all of dev as one block, as the incumbent did: in a block of its own
their state would begin anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.objective import Objective
from engine.flows import Flow, together
from engine.program.graph import Program
from engine.program.recurrence import carries_state
from engine.records import Example, Trace
from engine.statistics import paired_permutation_p

_DROP_BELOW = 0.1
_BLOCK = 25


@dataclass(frozen=True, slots=True)
class Runner:
    """A program in a race, with its traces so far in dev order. `finished` runners have seen all of dev."""

    program: Program
    traces: tuple[Trace, ...] = ()
    finished: bool = False


def race(
    programs: Sequence[Program], dev: Sequence[Example], objective: Objective, rng: Generator
) -> Flow[list[Runner]]:
    """Race programs over dev. Returns a runner for each, in the order given; at least the best has finished."""
    runners = [Runner(program) for program in programs]
    running = list(range(len(runners)))
    size = len(dev) if any(map(carries_state, programs)) else _BLOCK
    for start in range(0, len(dev), size):
        block = dev[start : start + size]
        ran = yield from together([objective.run(runners[index].program, block) for index in running])
        for index, traces in zip(running, ran, strict=True):
            so_far = (*runners[index].traces, *traces)
            runners[index] = Runner(runners[index].program, so_far, finished=len(so_far) == len(dev))
        leader = min(running, key=lambda index: (objective.rank(runners[index].traces), index))
        values = objective.values(runners[leader].traces)
        running = [
            index
            for index in running
            if index == leader
            or paired_permutation_p(values, objective.values(runners[index].traces), rng) >= _DROP_BELOW
        ]
    return runners


def best_finished(runners: Sequence[Runner], objective: Objective) -> int:
    """Which runner won: the best of those that finished, the earlier on a tie."""
    finished = [index for index, runner in enumerate(runners) if runner.finished]
    return min(finished, key=lambda index: (objective.rank(runners[index].traces), index))
