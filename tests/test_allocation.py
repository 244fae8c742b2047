"""The bandit over proposers: what works plays, what no longer works gives way, and everything has its turn."""

from collections import Counter
from dataclasses import dataclass
from typing import cast

from numpy.random import default_rng

from engine.optim.allocation import Play, chosen
from engine.optim.history import Proposer


@dataclass
class Arm:
    """What the bandit sees of a proposer."""

    name: str
    prior: float


def arms(**priors: float) -> list[Proposer]:
    return [cast(Proposer, Arm(name, prior)) for name, prior in priors.items()]


def shares(proposers: list[Proposer], plays: list[Play], round: int, many: int = 1) -> Counter[str]:
    drawn = [chosen(proposers, plays, round, many, default_rng(seed)) for seed in range(400)]
    return Counter(one.name for those in drawn for one in those)


def test_before_anything_is_known_priors_decide_and_all_have_a_chance() -> None:
    found = shares(arms(demos=0.2, bias=0.15, words=0.1), [], 1)
    assert found["demos"] > found["bias"] > found["words"] > 0


def test_what_gained_plays_more_than_what_did_not() -> None:
    plays = [Play(1, "a", gain=0.3), Play(1, "b", gain=0.0)]
    found = shares(arms(a=0.1, b=0.1), plays, 2)
    assert found["a"] > 380


def test_gains_of_the_past_are_forgotten() -> None:
    once = [Play(1, "a", gain=0.4)]
    since = [*once, *(Play(round, "a", gain=0.0) for round in range(2, 7))]
    assert shares(arms(a=0.1, b=0.1), once, 2)["a"] > 350
    assert shares(arms(a=0.1, b=0.1), since, 7)["b"] > 200


def test_where_all_can_play_all_do_in_their_order() -> None:
    proposers = arms(a=0.0, b=0.2, c=0.1)
    assert chosen(proposers, [], 1, 3, default_rng(0)) == proposers
    assert chosen(proposers, [], 1, 9, default_rng(0)) == proposers


def test_a_choice_depends_on_its_generator_alone_and_keeps_the_order() -> None:
    proposers = arms(a=0.1, b=0.1, c=0.1, d=0.1)
    picks = [[one.name for one in chosen(proposers, [], 1, 2, default_rng(seed))] for seed in range(50)]
    assert picks == [[one.name for one in chosen(proposers, [], 1, 2, default_rng(seed))] for seed in range(50)]
    assert all(pick == sorted(pick) and len(pick) == 2 for pick in picks)
    assert len({tuple(pick) for pick in picks}) == 6
