"""The bar: what a runner has to beat after the race, held up to it while it runs.

Whoever could not pass the acceptance test even if it did as well as possible on every row it has not seen need not go
on. This saves work and nothing else: no one drops out that would have been accepted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.optim.racing.policy import Values
from engine.statistics import exact_permutation_p

_GRAINS = 100  # steps that differences are rounded up to; scores of 0 and 1 lose nothing


@dataclass(frozen=True, slots=True)
class Bar:
    """The incumbent's `values` on all of dev, in its order, and the level of the test that each runner has to pass."""

    values: tuple[float, ...]
    levels: tuple[float, ...]

    def in_order(self, order: Sequence[int]) -> "Bar":
        """The same bar for rows in another order."""
        return Bar(tuple(self.values[row] for row in order), self.levels)

    def within_reach(self, runner: int, seen: Values, least: float, most: float) -> bool:
        """Whether a runner, by its number, with these values on the first rows can pass if the rest is worth `most`.

        The p-value is exact for 0 and 1; else differences are rounded up, so that no hope is overlooked.
        """
        ahead = np.full(len(self.values), most)
        ahead[: len(seen)] = seen
        steps = np.ceil((ahead - np.asarray(self.values)) / ((most - least) / _GRAINS) - 1e-9).astype(np.int64)
        return exact_permutation_p(steps) <= self.levels[runner]
