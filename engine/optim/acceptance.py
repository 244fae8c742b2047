"""Acceptance: the one rule by which a program replaces the incumbent.

The winner of a round's race must beat the program as it was given, on all of dev, in a one-sided paired permutation
test. The chance that a run ever hands over a change that is worth nothing stays below ALPHA, however long it gets:
round r may spend ALPHA / (r (r + 1)), which sums to ALPHA (alpha spending, as in Foster & Stine 2008). It is shared
among the candidates that raced for it (Bonferroni, weighted as in Genovese 2006): half goes to the one that train likes
best, of which most is to be expected, a quarter to the next, and so on.

One improvement having been accepted, the next must beat both: the program as given in the test, and the incumbent by
the minimum gain. So what is promised is that the program handed over is better than the one given, not that each of
its edits was one for the better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.statistics import mean, paired_permutation_p

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one test: `gain` is the difference of means to the incumbent, which must reach `least`."""

    p_value: float
    level: float
    gain: float
    least: float

    @property
    def accepted(self) -> bool:
        """Whether the candidate replaces the incumbent."""
        return self.p_value <= self.level and self.gain > 0 and self.gain >= self.least


def fewest_examples() -> int:
    """How many dev examples it takes that a change can ever be accepted: with fewer not even n wins of n suffice."""
    return math.ceil(math.log2(2 / ALPHA))


def levels_of(round: int, raced: int) -> tuple[float, ...]:
    """The levels of the tests in a round (from 1) for each of `raced` candidates, in the order in which train has them.

    The order must not depend on dev. The last two have the same.
    """
    shares = [2.0 ** -min(place, raced - 1) for place in range(1, raced + 1)]
    return tuple(ALPHA / (round * (round + 1)) * share for share in shares)


def judge(
    candidate: Sequence[float],
    baseline: Sequence[float],
    incumbent: Sequence[float],
    level: float,
    rng: Generator,
    least: float = 0.0,
) -> Verdict:
    """Test the winner of a race at its level, by its paired values on dev."""
    p_value = paired_permutation_p(candidate, baseline, rng)
    return Verdict(p_value, level, mean(candidate) - mean(incumbent), least)
