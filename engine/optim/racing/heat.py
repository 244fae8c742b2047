"""A heat in progress: what is known of the runners while their calls come back, and who is out whatever else comes.

Two things take a runner out: the policy, because of its rivals, and the bar. One that the bar takes out in a heat beats
nobody in it; while that is open, the others can neither count on it nor forget it. All that is said here of a heat in
progress holds for every way in which it can end, so it makes no difference how much of it was known when.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.optim.racing.bar import Bar
from engine.optim.racing.policy import Policy, Prospect, Standing, Values


class Heat:
    """Values come in by runner and row, in any order; `out` says who is out for certain."""

    def __init__(self, before: Standing, further: Mapping[int, int], policy: Policy, bar: Bar | None) -> None:
        """`further` rows by runner; `bar` in the order of the rows."""
        self._before, self._policy, self._bar = before, policy, bar
        runners = range(len(before.values))
        self._low = [_followed(before.values[runner], further.get(runner, 0), before.least) for runner in runners]
        self._high = [_followed(before.values[runner], further.get(runner, 0), before.most) for runner in runners]
        self._stays = set(before.racing) if bar is None else set()
        self._fails: set[int] = set()
        if bar:
            for runner in before.racing:
                self._hold_up(bar, runner)

    def see(self, runner: int, row: int, values: Sequence[float]) -> None:
        """Note values of a runner, from the given row on."""
        self._low[runner][row : row + len(values)] = values
        self._high[runner][row : row + len(values)] = values
        if self._bar and runner not in self._stays and runner not in self._fails:
            self._hold_up(self._bar, runner)

    def out(self, losses: Mapping[int, float] | None = None) -> set[int]:
        """Who is out. `losses` are the mean losses of those whose values are all known."""
        runners = range(len(self._low))
        nothing = np.float64(-np.inf)
        low = [values if runner in self._stays else values + nothing for runner, values in enumerate(self._low)]
        high = [values + nothing if runner in self._fails else values for runner, values in enumerate(self._high)]
        ties = tuple((losses or {}).get(runner, np.nan) for runner in runners)
        return self._fails | set(self._policy.beaten(self._before, Prospect(tuple(low), tuple(high), ties)))

    def _hold_up(self, bar: Bar, runner: int) -> None:
        """Hold the bar up to a runner whose fate before it is open."""
        least, most = self._before.least, self._before.most
        if not bar.within_reach(runner, self._high[runner], least, most):
            self._fails.add(runner)
        elif bar.within_reach(runner, self._low[runner], least, most):
            self._stays.add(runner)


def _followed(values: Values, further: int, by: float) -> Values:
    return np.concatenate([values, np.full(further, by)])
