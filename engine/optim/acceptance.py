"""Acceptance: the one rule by which a program replaces the incumbent.

The winner of a round's race must beat the incumbent on all of dev in a one-sided paired permutation test. The chance
of ever accepting a change that is worth nothing stays below ALPHA for the whole run, however long it gets: round r may
spend ALPHA / (r (r + 1)), which sums to ALPHA (alpha spending, as in Foster & Stine 2008), and shares it evenly among
the candidates that raced for it (Bonferroni).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.statistics import paired_permutation_p

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one test: accepted where `p_value` is at most `level`."""

    p_value: float
    level: float

    @property
    def accepted(self) -> bool:
        """Whether the candidate replaces the incumbent."""
        return self.p_value <= self.level


def fewest_examples() -> int:
    """How many dev examples it takes that a change can ever be accepted: with fewer not even n wins of n suffice."""
    return math.ceil(math.log2(2 / ALPHA))


def level_of(round: int, raced: int) -> float:
    """What one of `raced` candidates of round `round` (from 1) may spend."""
    return ALPHA / (round * (round + 1)) / max(1, raced)


def judge(candidate: Sequence[float], incumbent: Sequence[float], round: int, raced: int, rng: Generator) -> Verdict:
    """Test the best of `raced` candidates of round `round` (from 1) against the incumbent, on paired dev scores."""
    return Verdict(paired_permutation_p(candidate, incumbent, rng), level_of(round, raced))
