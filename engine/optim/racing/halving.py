"""Successive halving: after each rung the better half goes on, to twice as many rows.

Jamieson & Talwalkar 2016, after Karnin et al. 2013. The budget of the original divides the rows evenly among the rungs;
here the first rung has a fixed size, since on a handful of rows scores of 0 and 1 tell little, and the last runner
alone sees what is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from engine.optim.racing.policy import Prospect, Standing


@dataclass(frozen=True, slots=True)
class Halving:
    """A first rung of `first` rows; ties go to the lower loss, then to the earlier runner."""

    first: int = 25

    name: ClassVar[str] = "halving"

    def heat(self, standing: Standing, finish: bool) -> Mapping[int, int]:
        """The next rung for all that race; the rest at once for one that is left."""
        racing = standing.racing
        seen = len(standing.values[racing[0]]) if racing else standing.rows
        left = standing.rows - seen
        if len(racing) == 1:
            return {racing[0]: left} if finish and left else {}
        return dict.fromkeys(racing, min(max(self.first, 2 * seen) - seen, left)) if left else {}

    def beaten(self, before: Standing, prospect: Prospect) -> set[int]:
        """Those with half of the field surely ahead of them. On the last rows nobody: they have been seen by then."""
        racing = before.racing
        if not racing or len(prospect.high[racing[0]]) == before.rows:
            return set()
        kept = (len(racing) + 1) // 2
        low = {runner: float(prospect.low[runner].sum()) for runner in racing}
        high = {runner: float(prospect.high[runner].sum()) for runner in racing}

        def ahead(rival: int, runner: int) -> bool:
            if low[rival] == high[runner] == high[rival] == low[runner]:
                return (prospect.losses[rival], rival) < (prospect.losses[runner], runner)
            return low[rival] > high[runner]

        return {runner for runner in racing if sum(ahead(rival, runner) for rival in racing if rival != runner) >= kept}
