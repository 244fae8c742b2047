"""Allocation: which proposers play a round, by what they have won so far (a bandit).

Thompson sampling (Thompson 1933; Chapelle & Li 2011) with a normal posterior: what a play of a proposer is worth is
drawn around the mean of what its plays have gained on dev and of its `prior`, which counts as a play before the first
round; those with the highest draws play. So what works plays often, and what has not been tried yet has its turn. A
play counts half as much with every round that has passed since (Garivier & Moulines 2011, discounted): once a proposer
has found what it can find, its gains are of the past.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.optim.history import Proposer

_SPREAD = 0.05  # of what single plays gain, in score: a few points up or down
_DISCOUNT = 0.5
_LEAST_WEIGHT = 0.25  # what is known of a proposer that has long not played


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


def chosen(
    proposers: Sequence[Proposer], plays: Sequence[Play], round: int, many: int, rng: Generator
) -> list[Proposer]:
    """The `many` that play in a round (from 1), in the order of `proposers`; all of them where there are no more."""
    draws = rng.standard_normal(len(proposers))
    if len(proposers) <= many:
        return list(proposers)
    worth = [_posterior(proposer, plays, round, draw) for proposer, draw in zip(proposers, draws, strict=True)]
    ranked = sorted(range(len(proposers)), key=lambda index: (-worth[index], index))
    return [proposers[index] for index in sorted(ranked[:many])]


def _posterior(proposer: Proposer, plays: Sequence[Play], round: int, draw: float) -> float:
    """One draw of what a play of the proposer is worth now."""
    known = [(_DISCOUNT ** (round - 1), proposer.prior)]
    known += [(_DISCOUNT ** (round - play.round), play.gain) for play in plays if play.proposer == proposer.name]
    weight = math.fsum(weight for weight, _ in known)
    mean = math.fsum(weight * gain for weight, gain in known) / weight
    return mean + float(draw) * _SPREAD / math.sqrt(max(weight, _LEAST_WEIGHT))
