"""Allocation: which proposers play a round, by what they have won so far (a bandit).

Thompson sampling (Thompson 1933; Chapelle & Li 2011) with a normal posterior: what a play of a proposer is worth is
drawn around the mean of what its plays have gained on dev and of its `prior`, which counts as one play; those with the
highest draws play. So what works plays often, and what has not been tried yet has its turn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.optim.history import Proposer

_SPREAD = 0.06  # of what single plays gain, in score: a few points up or down


@dataclass(frozen=True, slots=True)
class Play:
    """One proposer's turn in one round.

    `gain` is the mean value on dev of its best candidate above that of the incumbent it started from; 0 where it had
    none to race. `calls` and `tokens`, asked for, are those of proposing, screening and racing.
    """

    round: int
    proposer: str
    proposals: int = 0
    raced: int = 0
    accepted: int = 0
    gain: float = 0.0
    calls: int = 0
    tokens: int = 0


def chosen(proposers: Sequence[Proposer], plays: Sequence[Play], many: int, rng: Generator) -> list[Proposer]:
    """The `many` that play next, in the order of `proposers`; all of them where there are no more."""
    draws = rng.standard_normal(len(proposers))
    if len(proposers) <= many:
        return list(proposers)
    worth = [_posterior(proposer, plays, draw) for proposer, draw in zip(proposers, draws, strict=True)]
    ranked = sorted(range(len(proposers)), key=lambda index: (-worth[index], index))
    return [proposers[index] for index in sorted(ranked[:many])]


def _posterior(proposer: Proposer, plays: Sequence[Play], draw: float) -> float:
    """One draw of what a play of the proposer is worth."""
    gains = [play.gain for play in plays if play.proposer == proposer.name]
    weight = 1 + len(gains)
    return (proposer.prior + math.fsum(gains)) / weight + float(draw) * _SPREAD / math.sqrt(weight)
