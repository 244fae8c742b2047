"""The index over words: BM25 (Robertson and Zaragoza 2009), by bm25s."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContentError

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, lower case, in order."""
    return _WORD.findall(text.lower())


class LexicalIndex:
    """Texts by number, searched by their words."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, texts: Iterable[str]) -> "LexicalIndex":
        """Index texts; at least one of them has a word."""
        import bm25s  # here, because it takes 0.2 s

        # Words are numbered here, as they come: bm25s would keep them all as strings, and number them by their hash.
        numbers: dict[str, int] = {}
        ids = [[numbers.setdefault(word, len(numbers)) for word in words(text)] for text in texts]
        index = bm25s.BM25(method="lucene")
        index.index((ids, numbers), show_progress=False)
        return cls(index)

    @classmethod
    def read(cls, folder: Path) -> "LexicalIndex":
        """An index from its folder.

        Raises:
            ContentError: a file is missing or cannot be read.
        """
        import bm25s

        try:
            return cls(bm25s.BM25.load(str(folder), load_corpus=False))
        except (OSError, ValueError, KeyError) as error:
            raise ContentError(f"{folder}: cannot be read ({error}): build it again") from None

    def write(self, folder: Path) -> None:
        """Write the index to a folder."""
        self._index.save(str(folder), show_progress=False)

    def search(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most k numbers and BM25 scores, the best first, of equals the smaller number.

        Texts that share no word with the query are left out.
        """
        known = [word for word in words(query) if word in self._index.vocab_dict]
        if not known:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        scores = np.asarray(self._index.get_scores(known), dtype=np.float32)
        least = np.partition(scores, -k)[-k] if k < len(scores) else 0.0
        found = np.flatnonzero((scores >= least) & (scores > 0))
        best = found[np.argsort(-scores[found], kind="stable")][:k].astype(np.int64)
        return best, scores[best]
