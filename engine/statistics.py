"""Intervals and paired tests for per-example scores.

Everything takes plain sequences of floats, one score an example, and returns numbers; nothing here draws a random
number that its caller did not hand over as a generator.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.errors import ContentError

_Z95 = 1.959963984540054
_EXACT_LIMIT = 16
_DRAWS = 50_000


def mean(scores: Sequence[float]) -> float:
    """Mean score; 0 for no scores."""
    return math.fsum(scores) / len(scores) if scores else 0.0


def wilson_interval(right: float, n: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927): `right` of `n` examples are right."""
    if n <= 0:
        raise ContentError("an interval needs at least one scored example")
    share = right / n
    centre = share + _Z95**2 / (2 * n)
    spread = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    scale = 1 + _Z95**2 / n
    return max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale))


def bootstrap_interval(scores: Sequence[float], rng: Generator, draws: int = 2000) -> tuple[float, float]:
    """95% percentile interval of the mean (Efron & Tibshirani 1993, ch. 13).

    Percentile method, not BCa: with few examples it is somewhat too narrow.

    Raises:
        ContentError: `scores` is empty.
    """
    if not scores:
        raise ContentError("an interval needs at least one scored example")
    values = np.asarray(scores, dtype=np.float64)
    means = values[rng.integers(0, len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(scores: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean score: Wilson where every score is 0 or 1, else a bootstrap with a fixed seed."""
    if all(score in (0.0, 1.0) for score in scores):
        return wilson_interval(math.fsum(scores), len(scores))
    return bootstrap_interval(scores, np.random.default_rng(0))


def paired_permutation_p(candidate: Sequence[float], incumbent: Sequence[float], rng: Generator) -> float:
    """One-sided p-value that `candidate` is better than `incumbent` on the same examples, in the same order.

    Signs of the paired differences are flipped (Fisher 1935; Dror et al. 2018, section 3.2). Exact where all
    differences have one size (then it is the sign test) or few examples differ; otherwise 50,000 draws, counted with
    the observed one, so never below 1/50,001. No difference at all gives 1.
    """
    differences = np.asarray(candidate, dtype=np.float64) - np.asarray(incumbent, dtype=np.float64)
    differences = differences[np.abs(differences) > 1e-12]
    if len(differences) == 0:
        return 1.0
    sizes, signs = np.abs(differences), differences > 0
    if np.allclose(sizes, sizes[0]):
        return _binomial_tail(int(signs.sum()), len(signs))
    observed = differences.sum() - 1e-12
    if len(differences) <= _EXACT_LIMIT:
        flips = (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes))) & 1
        return float(((flips * 2 - 1) @ sizes >= observed).mean())
    flips = rng.integers(0, 2, size=(_DRAWS, len(sizes)), dtype=np.int8)
    reached = int(((flips * 2 - 1) @ sizes >= observed).sum())
    return (reached + 1) / (_DRAWS + 1)


def exact_permutation_p(differences: NDArray[np.int64]) -> float:
    """The p-value of `paired_permutation_p` for whole differences, exactly. Where one of them grows it never does.

    Flipping signs reaches the observed sum as often as the differences that are flipped add up to 0 or less; sums are
    counted as in Pagano & Tritchler 1983.
    """
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    sizes = np.abs(differences)
    if (sizes == sizes[0]).all():
        return _binomial_tail(int((differences > 0).sum()), len(differences))
    most = int(sizes[differences < 0].sum())  # a gain that is flipped, or a loss that is not, adds its size
    chances = np.zeros(most + 1)
    chances[0] = 1.0
    for size in sizes:
        chances[size:] += chances[: max(0, most + 1 - size)]
        chances *= 0.5
    return float(chances.sum())


@functools.lru_cache(maxsize=4096)
def _binomial_tail(wins: int, trials: int) -> float:
    """P(at least `wins` heads in `trials` fair tosses)."""
    return float(sum(math.comb(trials, k) for k in range(wins, trials + 1)) / 2**trials)
