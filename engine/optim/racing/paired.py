"""Paired tests in blocks: all runners see the same rows, and whoever the leader clearly beats drops out.

The racing algorithm F-Race (Birattari 2002), after Hoeffding races (Maron & Moore 1994), with a paired one-sided
permutation test in place of Friedman's and a sequential correction that F-Race lacks: the level is divided evenly by
the looks there can be and by the rivals of the leader (Bonferroni), so that the chance that the best program of a
population drops out at any time stays below the level.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.optim.racing.policy import Prospect, Standing, Values
from engine.statistics import exact_permutation_p

_GRAINS = 50  # steps that differences are rounded down to; scores of 0 and 1 lose nothing


@dataclass(frozen=True, slots=True)
class Paired:
    """Blocks of `block` rows, one level for the whole race."""

    block: int = 25
    level: float = 0.1

    name: ClassVar[str] = "paired"

    def heat(self, standing: Standing, finish: bool) -> Mapping[int, int]:
        """The next block for all that race; the rest at once for one that is left."""
        racing = standing.racing
        left = standing.rows - len(standing.values[racing[0]]) if racing else 0
        if len(racing) == 1:
            return {racing[0]: left} if finish and left else {}
        return dict.fromkeys(racing, min(self.block, left)) if left else {}

    def beaten(self, before: Standing, prospect: Prospect) -> set[int]:
        """Those that every possible leader beats. On the last rows nobody: they have been seen by then."""
        racing = before.racing
        if len(racing) < 2 or len(prospect.high[racing[0]]) == before.rows:
            return set()
        looks = math.ceil(before.rows / self.block)
        level = self.level / looks / (len(racing) - 1)
        grain = (before.most - before.least) / _GRAINS
        surely = max(float(prospect.low[runner].sum()) for runner in racing)
        leaders = [runner for runner in racing if prospect.high[runner].sum() >= surely]
        return {
            runner
            for runner in racing
            if runner not in leaders
            and all(_p_value(prospect.low[leader], prospect.high[runner], grain, level) <= level for leader in leaders)
        }


def _p_value(better: Values, worse: Values, grain: float, enough: float) -> float:
    """One-sided, from differences rounded down to whole grains; 1 where it cannot come to `enough` anyhow."""
    if not np.isfinite(better).all() or better.sum() <= worse.sum():
        return 1.0
    if not np.isfinite(worse).all():
        return 0.0
    steps = np.floor((better - worse) / grain + 1e-9).astype(np.int64)
    if 0.5 ** np.count_nonzero(steps) > enough:
        return 1.0
    return exact_permutation_p(steps)
