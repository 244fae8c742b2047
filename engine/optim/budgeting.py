"""Spending: how much of a run's budget is gone, counted so that a resumed run ends where an uninterrupted one would.

Calls and tokens are counted as asked for, cached or not. Seconds are those of all sessions together, but the clock of
a resumed session starts with its first call that the store cannot answer: the replay before it is free.
"""

import time
from dataclasses import dataclass

from engine.errors import BudgetSpent
from engine.inference.usage import Usage
from engine.tasks.budget import Budget


class Meter:
    """Watches one run's usage against its budget."""

    def __init__(self, budget: Budget, usage: Usage, seconds_before: float = 0.0) -> None:
        """`usage` is the state of the runtime's totals now; `seconds_before` what earlier sessions spent."""
        self.budget = budget
        self._start = usage.copy()
        self._usage = usage
        self._seconds_before = seconds_before
        self._resumed = seconds_before > 0
        self._started_at = None if self._resumed else time.perf_counter()

    def allow(self, usage: Usage) -> None:
        """See that the budget is not used up.

        Raises:
            BudgetSpent: it is.
        """
        if self._started_at is None and usage.calls - usage.cached_calls > self._start.calls - self._start.cached_calls:
            self._started_at = time.perf_counter()
        if self._started_at is None and self.budget.unit == "seconds":
            return
        if self.spent >= self.budget.amount:
            raise BudgetSpent(f"the budget of {self.budget} is spent")

    @property
    def seconds(self) -> float:
        """Seconds spent so far, all sessions together."""
        return self._seconds_before + (time.perf_counter() - self._started_at if self._started_at is not None else 0.0)

    @property
    def spent(self) -> float:
        """What is spent, in the budget's unit."""
        used = self._usage.since(self._start)
        return {"seconds": self.seconds, "calls": float(used.calls), "tokens": float(used.tokens)}[self.budget.unit]

    @property
    def left(self) -> float:
        """What is left, in the budget's unit."""
        return max(0.0, self.budget.amount - self.spent)

    @property
    def share_left(self) -> float:
        """The part of the budget that is left, from 1 down to 0."""
        return self.left / self.budget.amount

    def calls_left(self, baseline: float | None = None) -> int:
        """How many calls the rest of the budget pays for, judged by the calls so far.

        Where these are only the bare `baseline`, which took so much of the unit, those to come are dearer: they carry
        demonstrations.
        """
        used = self._usage.since(self._start)
        price = self.spent if baseline is None else baseline * _DEARER_THAN_BASELINE.get(self.budget.unit, 1.0)
        if self.budget.unit == "calls" or used.calls == 0 or price == 0:
            return int(self.left)
        return int(self.left * used.calls / price)


# Demonstrations are computed once for many calls, but asked for in each: they cost some time and many tokens. Beside 8,
# 16, 32 and 48 of them 24 rows of subj took 1.7, 2.8, 5.3 and 8.3 times as long as alone.
_DEARER_THAN_BASELINE = {"seconds": 3.3, "tokens": 6.0}


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """How one round divides the calls that are left: it may use about three quarters of them.

    `players` proposers play, each with `allowance` calls; `screening` train examples measure each proposal, and at most
    `racers` of them race on dev.
    """

    players: int
    allowance: int
    screening: int
    racers: int

    @classmethod
    def of(cls, calls_left: int, proposers: int, dev: int) -> "RoundPlan":
        """Two fifths of the calls for proposers, a seventh for screening, within sense; the rest is for races.

        Few calls go to few proposers, so that each can do its work: a search that is cut short finds next to nothing.
        """
        share = calls_left * 2 // 5
        players = max(1, min(proposers, _MOST_PLAYERS, share // _WORTHWHILE))
        return cls(
            players=players,
            allowance=max(1, share // players),
            screening=min(120, max(24, calls_left // 7 // (_PROPOSALS * players))),
            racers=max(1, min(_MOST_RACERS, dev // _ROWS_A_RACER)),
        )


_MOST_PLAYERS = 4
_WORTHWHILE = 300  # calls of a proposer: two dozen sets of demonstrations on as many rows
_PROPOSALS = 3  # of each, about
# What train likes best: with more, each of them must win by more to be believed, for which few rows do not suffice.
_MOST_RACERS = 4
_ROWS_A_RACER = 20
