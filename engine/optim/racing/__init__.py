"""Races of candidates, one policy a file."""

from engine.optim.racing.bar import Bar
from engine.optim.racing.halving import Halving
from engine.optim.racing.paired import Paired
from engine.optim.racing.policy import Policy
from engine.optim.racing.race import Runner, best, best_finished, race
from engine.optim.racing.ucb import Ucb

__all__ = ["DEFAULT", "POLICIES", "Bar", "Policy", "Runner", "best", "best_finished", "race"]

POLICIES: dict[str, Policy] = {policy.name: policy for policy in (Ucb(), Paired(), Halving())}
DEFAULT = POLICIES["ucb"]
