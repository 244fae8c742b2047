"""The nearest of some texts, a pool: exact cosines; the texts seen last, of pools and queries, are embedded once.

Cosines are rounded to six decimals before they are compared, and of equals the first text wins: what a text is embedded
together with changes the last bits. Hubs are texts that are near to many (Radovanović 2010).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.records import Nearest, Passage
from engine.retrieval.embedder import Embedder, Vectors
from engine.store.keys import canonical

_HELD = 4  # pools
_KNOWN = 20_000  # texts
_DECIMALS = 6
_BLOCK = 4_000_000  # cosines at a time

Places = NDArray[np.int64]


@lru_cache(maxsize=2 * _HELD)
def pool_digest(texts: tuple[str, ...]) -> str:
    """A hash of texts and their order, 40 hexadecimal digits."""
    return hashlib.blake2b(canonical(list(texts)).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


class NearestTexts:
    """Answers Nearest. It holds the pools that were asked for last."""

    def __init__(self, embedder: Callable[[], Embedder]) -> None:
        """`embedder` is called when there are texts to embed."""
        self._embedder = embedder
        self._pools: dict[str, _Pool] = {}
        self._known: dict[str, Vectors] = {}

    def find(self, texts: tuple[str, ...], requests: Sequence[Nearest]) -> list[tuple[Passage, ...]]:
        """The passages of each request, all of them about `texts`; their queries are embedded together.

        Raises:
            ModelMissing, ModelError: the embedder is not on this machine or cannot be loaded.
        """
        if not texts:
            return [()] * len(requests)
        pool = self._pool(texts)
        queries = self._vectors([request.query for request in requests])
        rows = _cosines(queries, pool.vectors)
        return [_passages(pool, row, request) for row, request in zip(rows, requests, strict=True)]

    def _pool(self, texts: tuple[str, ...]) -> "_Pool":
        name = pool_digest(texts)
        pool = self._pools.pop(name, None) or _Pool(self._vectors(texts))
        self._pools[name] = pool  # the newest last
        for oldest in list(self._pools)[:-_HELD]:
            del self._pools[oldest]
        return pool

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts (texts, dimension); only those that are not known are embedded, together."""
        unique = dict.fromkeys(texts)
        new = [text for text in unique if text not in self._known]
        self._known |= dict(zip(new, self._embedder().embed(new), strict=True)) if new else {}
        found = np.stack([self._known[text] for text in texts])
        for oldest in list(self._known)[:-_KNOWN]:
            del self._known[oldest]
        return found

    def clear(self) -> None:
        """Let go of all pools and texts."""
        self._pools.clear()
        self._known.clear()


class _Pool:
    """Texts by their vectors (texts, dimension)."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self._hubs: dict[int, Places] = {}

    def hubs(self, k: int) -> Places:
        """For each text, how many of the others have it among the `k` that are nearest to them."""
        if k not in self._hubs:
            counts = np.zeros(len(self.vectors), dtype=np.int64)
            for place, row in enumerate(_cosines(self.vectors, self.vectors)):
                row[place] = -np.inf
                counts[_nearest(row, min(k, len(row) - 1))] += 1
            self._hubs[k] = counts
        return self._hubs[k]


def _passages(pool: _Pool, cosines: NDArray[np.float64], request: Nearest) -> tuple[Passage, ...]:
    places = _nearest(cosines, request.k)
    if request.order == "hubs_first":
        places = places[np.lexsort((places, -pool.hubs(request.k)[places]))]
    return tuple(Passage(str(place), "", "", "", float(cosines[place])) for place in places)


def _cosines(queries: Vectors, texts: Vectors) -> Iterator[NDArray[np.float64]]:
    """A row of cosines (texts,) for each query."""
    size = max(1, _BLOCK // max(1, len(texts)))
    for start in range(0, len(queries), size):
        block = queries[start : start + size] @ texts.T
        yield from np.round(block.astype(np.float64), _DECIMALS) + 0.0


def _nearest(cosines: NDArray[np.float64], k: int) -> Places:
    """The places of the `k` highest, the highest first, of equals the first."""
    k = min(k, len(cosines))
    if k < 1:
        return np.empty(0, dtype=np.int64)
    places = np.flatnonzero(cosines >= np.partition(cosines, -k)[-k])
    best: Places = places[np.lexsort((places, -cosines[places]))][:k]
    return best
