"""Upper confidence bounds: whoever could be the best by the highest bound on its mean sees the next block.

UCB-E (Audibert & Bubeck 2010), which Zhou et al. 2024 take for prompts. It ends when the runner with the highest bound
has seen all rows, so that nobody else is likely to pass it. The bound is another than theirs: rows are few and drawn
without replacement, so it is a normal one, with the variance of each runner's own values, and it closes in on the mean
as the rows run out (Serfling 1974).

One that the bar took out keeps its bound. Where that is the highest, the race is over without a winner: whoever is
likely the best cannot pass. With 6 programs and 100 rows, none of them better than the incumbent, that takes a third to
two fifths of all executions (scripts/races.py --null); with a quarter of the rows discordant 230 of 600, against 402
where the others go on until none is left, and 347 without a bar. It costs some acceptances: where three are better by
10 to 20 points, 93 of 100 races end with one, 99 where the others go on, and 95 without a bar.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

from engine.optim.racing.policy import Prospect, Standing


@dataclass(frozen=True, slots=True)
class Ucb:
    """Blocks of `block` rows. The runners share a chance of `doubt` that a bound is below a mean (Bonferroni).

    Both were chosen on sst2, snips_intent and ii_sentiment (scripts/races.py has others): of 8 programs on 200 rows the
    best won 93 to 94 times of 100, for 25 to 32% of all executions; with a doubt of 0.3, 95 to 98 times, for 27 to 35%,
    with 0.8, 89 to 91 times, for 23 to 29%. Larger blocks and larger first ones cost what they gained.
    """

    block: int = 10
    doubt: float = 0.5

    name: ClassVar[str] = "ucb"

    def heat(self, standing: Standing, finish: bool) -> Mapping[int, int]:
        """At first a block for all that race, then one for the runner with the highest bound."""
        racing, rows = standing.racing, standing.rows
        seen = [len(values) for values in standing.values]
        first = min(self.block, rows)
        if fresh := {runner: first - seen[runner] for runner in racing if seen[runner] < first}:
            return fresh
        bounds = {runner: self._bounds(standing, runner) for runner in range(len(seen)) if seen[runner]}
        top = max(bounds, key=lambda runner: (bounds[runner][1], seen[runner] == rows, -runner), default=None)
        if top not in racing or seen[top] == rows or not (finish or self._open(bounds)):
            return {}
        return {top: min(self.block if len(bounds) > 1 else rows, rows - seen[top])}

    def beaten(self, before: Standing, prospect: Prospect) -> Collection[int]:
        """Nobody for certain: who is passed over may have the highest bound again later."""
        return ()

    def _bounds(self, standing: Standing, runner: int) -> tuple[float, float]:
        """Lower and upper bound of a runner's mean over all rows."""
        values, rows = standing.values[runner], standing.rows
        count = len(values)
        at_worst = ((standing.most - standing.least) / 2) ** 2
        variance = (values.var() * count + at_worst) / (count + 1)
        margin = NormalDist().inv_cdf(1 - self.doubt / len(standing.values)) * math.sqrt(
            variance / count * (1 - count / rows)
        )
        return float(values.mean()) - margin, float(values.mean()) + margin

    def _open(self, bounds: Mapping[int, tuple[float, float]]) -> bool:
        """Whether someone's upper bound is above the best lower one of the others."""
        leader = max(bounds, key=lambda runner: (bounds[runner][0], -runner))
        return any(upper > bounds[leader][0] for runner, (_, upper) in bounds.items() if runner != leader)
