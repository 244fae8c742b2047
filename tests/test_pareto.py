"""Pareto pools and fronts against what their definitions say, example by example and figure by figure."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support_evolution import Figure, candidate, traces_of
from support_optim import EXACT, closed_program

from engine.optim.history import Candidate
from engine.optim.pareto import front, pool

PROGRAM = closed_program()

tables = st.integers(0, 5).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=rows, max_size=rows), min_size=1, max_size=7
    )
)
figures = st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3), st.sampled_from([0.1, 0.2, 0.3]))


def drawn_from(table: list[list[float]]) -> list[Candidate]:
    return [candidate(number, PROGRAM, scores) for number, scores in enumerate(table)]


def on_front(points: list[Figure]) -> list[Candidate]:
    """Candidates of one example each, with these figures."""
    return [Candidate(number, PROGRAM, traces_of(PROGRAM, [point])) for number, point in enumerate(points)]


@given(tables)
def test_the_pool_holds_whoever_wins_an_example_and_is_not_dominated(table: list[list[float]]) -> None:
    def wins(number: int, example: int) -> bool:
        return all(table[number][example] >= other[example] for other in table)

    def dominates(other: int, number: int) -> bool:
        examples = range(len(table[0]))
        as_many = all(wins(other, example) for example in examples if wins(number, example))
        return as_many and any(wins(other, example) and not wins(number, example) for example in examples)

    expected = {
        number: sum(wins(number, example) for example in range(len(table[0])))
        for number in range(len(table))
        if any(wins(number, example) for example in range(len(table[0])))
        and not any(dominates(other, number) for other in range(len(table)))
    }
    found = pool(drawn_from(table), EXACT)
    assert dict(zip([one.number for one in found.candidates], found.wins, strict=True)) == expected
    assert [one.number for one in found.candidates] == sorted(expected)


@given(tables)
def test_every_example_has_a_winner_in_the_pool(table: list[list[float]]) -> None:
    kept = [one.number for one in pool(drawn_from(table), EXACT).candidates]
    for column in zip(*table, strict=True):
        assert any(column[number] == max(column) for number in kept)


def test_candidates_are_drawn_as_often_as_they_win() -> None:
    table = [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    found = pool(drawn_from(table), EXACT)
    rng = np.random.default_rng(0)
    drawn = [one.number for _ in range(2000) if (one := found.draw(rng))]
    assert found.wins == (3, 1)
    assert set(drawn) == {0, 1}, "the third is dominated by the first"
    assert 0.72 < drawn.count(0) / 2000 < 0.78


def test_of_candidates_without_examples_none_is_drawn() -> None:
    found = pool(drawn_from([[], []]), EXACT)
    assert found.candidates == ()
    assert found.draw(np.random.default_rng(0)) is None
    assert pool([], EXACT).candidates == ()


@given(st.lists(figures, max_size=12))
def test_the_front_is_whoever_no_other_beats(points: list[Figure]) -> None:
    costs = np.array([(-value, tokens, seconds) for value, tokens, seconds in points]).reshape(-1, 3)
    expected = [
        number for number, own in enumerate(costs) if not ((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any()
    ]
    assert [one.number for one in front(on_front(points), EXACT)] == expected


@given(st.lists(figures, min_size=1, max_size=8), st.randoms())
def test_the_front_does_not_depend_on_the_order_and_keeps_it(points: list[Figure], chance: object) -> None:
    candidates = on_front(points)
    shuffled = list(candidates)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    found = front(shuffled, EXACT)
    assert sorted(one.number for one in found) == [one.number for one in front(candidates, EXACT)]
    assert found == [one for one in shuffled if one in found]
    assert any(EXACT.mean(one.traces) == max(value for value, _, _ in points) for one in found)


def test_a_candidate_that_has_not_raced_is_on_no_front() -> None:
    (known,) = on_front([(0.0, 5, 0.5)])
    assert front([known, Candidate(1, PROGRAM, ())], EXACT) == [known]


def test_figures_are_means_of_an_example() -> None:
    dear = Candidate(0, PROGRAM, traces_of(PROGRAM, [(1.0, 10, 0.3), (0.0, 30, 0.1)]))
    cheap = Candidate(1, PROGRAM, traces_of(PROGRAM, [(0.0, 19, 0.2), (1.0, 20, 0.1)]))
    assert front([dear, cheap], EXACT) == [cheap]
