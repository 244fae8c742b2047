"""Statistics against published values, brute force and simulation."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError
from engine.statistics import bootstrap_interval, mean, mean_interval, paired_permutation_p, wilson_interval


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute_force_p(candidate: Sequence[float], incumbent: Sequence[float]) -> Fraction:
    """The share of all sign assignments whose sum reaches the observed one, in exact arithmetic."""
    differences = [Fraction(c) - Fraction(i) for c, i in zip(candidate, incumbent, strict=True)]
    observed = sum(differences)
    sums = [
        sum(sign * abs(d) for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return Fraction(sum(value >= observed for value in sums), len(sums))


# ── intervals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2366, 0.7634),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_wilson_agrees_with_published_values(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_share_and_mirrors(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert wilson_interval(n - right, n) == pytest.approx((1 - high, 1 - low))


def test_wilson_narrows_with_more_examples() -> None:
    widths = [high - low for low, high in (wilson_interval(n / 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ContentError, match="at least one scored example"):
        wilson_interval(0, 0)
    with pytest.raises(ContentError, match="at least one scored example"):
        bootstrap_interval([], rng())
    with pytest.raises(ContentError, match="at least one scored example"):
        mean_interval([])


def test_the_bootstrap_agrees_with_the_normal_interval_on_many_examples() -> None:
    scores = rng(1).random(500)
    low, high = bootstrap_interval(scores.tolist(), rng(2), draws=4000)
    spread = 1.96 * scores.std(ddof=1) / math.sqrt(500)
    assert (low, high) == pytest.approx((scores.mean() - spread, scores.mean() + spread), abs=0.1 * spread)


def test_the_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = rng(3)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(random.beta(2, 3, 60).tolist(), random, draws=400)
        covered += low <= 0.4 <= high
    assert 0.90 <= covered / 300 <= 0.98


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_bootstrap_stays_within_the_scores_and_repeats_with_its_seed(scores: list[float]) -> None:
    low, high = bootstrap_interval(scores, rng(), draws=200)
    assert min(scores) - 1e-12 <= low <= high <= max(scores) + 1e-12
    assert bootstrap_interval(scores, rng(), draws=200) == (low, high)


def test_the_bootstrap_of_equal_scores_has_no_width() -> None:
    assert bootstrap_interval([0.5] * 9, rng()) == (0.5, 0.5)


def test_the_interval_of_a_mean_is_wilsons_exactly_for_scores_of_0_and_1() -> None:
    assert mean_interval([1.0, 0.0, 1.0, 1.0]) == wilson_interval(3, 4)
    assert mean_interval([1.0, 0.0, 0.5]) == bootstrap_interval([1.0, 0.0, 0.5], rng())


def test_the_mean_of_nothing_is_0_and_sums_are_exact() -> None:
    assert mean([]) == 0
    assert mean([0.1] * 10) == 0.1


# ── the paired test ──────────────────────────────────────────────────────────────────────────────

SCORE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "p"),
    [
        ([1, 1, 1], [0, 0, 0], 1 / 8),
        ([1, 1, 1, 0], [0, 0, 0, 1], 5 / 16),
        ([0, 0, 0], [1, 1, 1], 1),
        ([1, 0], [0, 1], 3 / 4),
        ([1, 1, 0], [1, 1, 0], 1),
        ([1.0, 0.5], [0.0, 0.0], 1 / 4),
        ([0.0, 1.0], [0.5, 0.0], 2 / 4),
        ([0.25, 0.5, 1.0], [0.0, 0.0, 0.0], 1 / 8),
    ],
)
def test_small_cases_worked_by_hand(candidate: list[float], incumbent: list[float], p: float) -> None:
    assert paired_permutation_p(candidate, incumbent, rng()) == pytest.approx(p)


@given(PAIRS)
def test_few_examples_agree_with_brute_force_and_draw_no_random_number(pairs: list[tuple[float, float]]) -> None:
    candidate, incumbent = zip(*pairs, strict=True)
    random = rng()
    p = paired_permutation_p(candidate, incumbent, random)
    assert p == pytest.approx(float(brute_force_p(candidate, incumbent)), abs=1e-12)
    assert random.random() == rng().random()


@given(PAIRS)
def test_both_directions_add_up_to_one_and_the_ties(pairs: list[tuple[float, float]]) -> None:
    candidate, incumbent = zip(*pairs, strict=True)
    better = paired_permutation_p(candidate, incumbent, rng())
    worse = paired_permutation_p(incumbent, candidate, rng())
    assert better + worse >= 1 - 1e-12
    mirrored = [1 - score for score in incumbent], [1 - score for score in candidate]
    assert paired_permutation_p(*mirrored, rng()) == pytest.approx(better)
    turned = list(reversed(pairs))
    assert paired_permutation_p([c for c, _ in turned], [i for _, i in turned], rng()) == pytest.approx(better)


@given(PAIRS, SCORE)
def test_an_example_on_which_both_agree_changes_nothing(pairs: list[tuple[float, float]], same: float) -> None:
    candidate, incumbent = map(list, zip(*pairs, strict=True))
    assert paired_permutation_p([*candidate, same], [*incumbent, same], rng()) == pytest.approx(
        paired_permutation_p(candidate, incumbent, rng())
    )


def test_many_wins_and_losses_of_one_size_are_a_sign_test() -> None:
    candidate, incumbent = [1.0] * 60 + [0.0] * 40, [0.0] * 60 + [1.0] * 40
    tail = sum(math.comb(100, wins) for wins in range(60, 101)) / 2**100
    assert paired_permutation_p(candidate, incumbent, rng()) == pytest.approx(tail)


def test_drawn_signs_agree_with_brute_force() -> None:
    random = rng(5)
    candidate, incumbent = random.random(18) + 0.1, random.random(18)
    differences = candidate - incumbent
    signs = (np.arange(2**18)[:, None] >> np.arange(18)) & 1
    exact = ((signs * 2 - 1) @ np.abs(differences) >= differences.sum() - 1e-12).mean()
    drawn = paired_permutation_p(candidate.tolist(), incumbent.tolist(), random)
    assert 0.05 < exact < 0.6
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 50_000))


def test_a_p_value_is_never_0_however_clear_the_case() -> None:
    clear = np.linspace(0.5, 1, 200).tolist()
    assert paired_permutation_p(clear, [0.0] * 200, rng()) == pytest.approx(1 / 50_001)
    assert paired_permutation_p([1.0] * 500, [0.0] * 500, rng()) == 2.0**-500


def test_under_the_null_a_level_is_reached_no_more_often_than_it_says() -> None:
    random = rng(7)
    tests, levels = 600, (0.05, 0.2)
    graded, binary = [], []
    for _ in range(tests):
        graded.append(paired_permutation_p(random.random(11).tolist(), random.random(11).tolist(), random))
        wins = random.integers(0, 2, (2, 40)).astype(float).tolist()
        binary.append(paired_permutation_p(wins[0], wins[1], random))
    for level in levels:
        slack = 3 * math.sqrt(level * (1 - level) / tests)
        assert level - slack <= float(np.mean(np.array(graded) <= level)) <= level + slack
        assert float(np.mean(np.array(binary) <= level)) <= level + slack


def test_a_real_difference_is_found() -> None:
    random = rng(8)
    for _ in range(5):
        base = random.random(60) * 0.5
        better = base + 0.1 + random.normal(0, 0.1, 60)
        assert paired_permutation_p(better.tolist(), base.tolist(), random) < 0.001
