"""What an index needs of a model that embeds: texts in, unit vectors out."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.program.pool import EMBEDDER

Vectors = NDArray[np.float32]
Report = Callable[[int, int], None]

DEFAULT_EMBEDDER = EMBEDDER


class Embedder(Protocol):
    """An opened model: `sha256` is that of its weights, `dimension` the length of its vectors, `longest` in tokens."""

    name: str
    sha256: str
    dimension: int
    longest: int

    def embed(self, texts: Sequence[str], report: Report = ...) -> Vectors:
        """Unit vectors (texts, dimension). A text longer than `longest` tokens counts up to there."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token of a text, however long it is."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
