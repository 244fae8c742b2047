"""Policies: who sees how many rows next, and who is beaten, decided from values alone.

A race goes in heats. Before each one the policy says which runners see how many rows more; after it, or during it as
soon as that is certain, which of them drop out. A policy knows no programs, no models and no chance.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a race stands. All runners see the rows in one order, each a beginning of them; those out see no more.

    `values` (rows seen,) are by runner and lie between `least` and `most`; `racing` are the runners that have not
    dropped out, in order; there are `rows` in all.
    """

    values: tuple[Values, ...]
    racing: tuple[int, ...]
    rows: int
    least: float = 0.0
    most: float = 1.0


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the end of a heat can bring: from `low` to `high`, each (rows seen by then,) by runner.

    They are equal where all is known. A runner that may drop out for other reasons than its rivals has minus infinity
    for its low, and one that surely does, for its high, too: nobody can count on it or need fear it. `losses` are the
    mean losses by then, lower is better, NaN where they are not known; they break ties.
    """

    low: tuple[Values, ...]
    high: tuple[Values, ...]
    losses: tuple[float, ...]


class Policy(Protocol):
    """How a race is run.

    `beaten` must be monotone, so that calling a runner off early changes nothing: whoever is beaten whatever comes is
    beaten by what then comes, and whether another one is does not depend on the values of those.
    """

    name: ClassVar[str]

    def heat(self, standing: Standing, finish: bool) -> Mapping[int, int]:
        """How many rows more each of some racing runners sees next; nobody where the race is over.

        With `finish` it is over when the winner has seen all rows, else when it is known.
        """

    def beaten(self, before: Standing, prospect: Prospect) -> Collection[int]:
        """Which runners drop out at the end of a heat, wherever between low and high it ends."""
