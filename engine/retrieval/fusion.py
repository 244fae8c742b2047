"""Reciprocal rank fusion: one ranking out of several, by ranks alone (Cormack, Clarke and Büttcher 2009)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_K = 60  # the paper's constant: how little the first ranks stand out


def fuse(rankings: Sequence[NDArray[np.int64]], most: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best `most` numbers and their scores, the sum of 1 / (60 + rank) over rankings that hold them.

    Numbers below 0 stand for nothing. Of equals the smaller number comes first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking.tolist(), 1):
            if number >= 0:
                scores[number] = scores.get(number, 0.0) + 1 / (_K + rank)
    best = sorted(scores, key=lambda number: (-scores[number], number))[:most]
    return np.array(best, dtype=np.int64), np.array([scores[number] for number in best], dtype=np.float32)
