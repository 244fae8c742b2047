"""Acceptance: the one rule by which a program replaces the incumbent.

The winner of a round's race must beat the program as it was given, on all of dev, in a one-sided paired permutation
test. The chance that a run ever hands over a change that is worth nothing stays below ALPHA, however long it gets:
round r may spend ALPHA / (r (r + 1)), which sums to ALPHA (alpha spending, as in Foster & Stine 2008), and shares it
evenly among the candidates that raced for it (Bonferroni).

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


def level_of(round: int, raced: int) -> float:
    """The level of the test in a round (from 1) that `raced` candidates competed in."""
    return ALPHA / (round * (round + 1)) / max(1, raced)


def judge(
    candidate: Sequence[float],
    baseline: Sequence[float],
    incumbent: Sequence[float],
    round: int,
    raced: int,
    rng: Generator,
    least: float = 0.0,
) -> Verdict:
    """Test the best of `raced` candidates of a round (from 1), by its paired values on dev."""
    p_value = paired_permutation_p(candidate, baseline, rng)
    return Verdict(p_value, level_of(round, raced), mean(candidate) - mean(incumbent), least)
