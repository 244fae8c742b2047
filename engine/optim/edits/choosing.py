"""Choosing: which operators play, by what their edits have won in this run (UCB1; Auer 2002, figure 1).

A reward is 1 where a candidate did better on dev than the incumbent it came from, else 0. Which operator made a
candidate is told by what it changed, so that nothing has to be remembered between rounds.
"""

import math

from numpy.random import Generator

from engine.optim.edits.operators import OPERATORS, Operator, Target, derived, targets
from engine.optim.history import Candidate, History


def playing(history: History, proposer: str, target: Target, many: int, rng: Generator) -> list[Operator]:
    """The `many` operators that play next on a target: those not tried yet in any order, then by their upper bound."""
    possible = [operator for operator in OPERATORS.values() if operator.places(target)]
    drawn = [possible[int(index)] for index in rng.permutation(len(possible))]
    rewards: dict[str, list[float]] = {operator.name: [] for operator in drawn}
    for candidate in history.by(proposer):
        name = operator_of(history, candidate)
        if name in rewards:
            rewards[name].append(float(candidate.gain > 0))
    plays = sum(map(len, rewards.values()))

    def bound(operator: Operator) -> float:
        own = rewards[operator.name]
        return sum(own) / len(own) + math.sqrt(2 * math.log(plays) / len(own)) if own else math.inf

    return sorted(drawn, key=bound, reverse=True)[:many]


def operator_of(history: History, candidate: Candidate) -> str | None:
    """The operator that made a candidate out of its parent."""
    before = {target.name: target for target in targets(history.candidates[candidate.parent].program)}
    for after in targets(candidate.program):
        if after.name in candidate.edits or after.demos_name in candidate.edits:
            return derived(before[after.name], after)
    return None
