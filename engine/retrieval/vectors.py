"""The index over vectors, by FAISS: exact for few, a graph (HNSW) or clusters (IVF) for many. Cosine of unit vectors.

A file is read only if it is of a kind that is written here, and within limits that its own size sets: FAISS's reader
trusts the numbers in a file. Whether the bytes are those that were written is checked before, by their hash.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContentError
from engine.retrieval.embedder import Vectors
from engine.retrieval.recipe import Kind

# At 100,000 clustered vectors of 384 numbers these reach a recall@10 above 0.95 (tests/test_retrieval_scale.py).
_EXACT_UP_TO = 20_000
_HNSW_NEIGHBOURS, _HNSW_BUILD, _HNSW_SEARCH = 32, 100, 128
_IVF_PROBES = 32
_IVF_TRAINED_ON = 64  # vectors a cluster
_FOURCC = {b"IxFI": "flat", b"IHNf": "hnsw", b"IwFl": "ivf"}


def kind_for(kind: Kind, count: int) -> Kind:
    """The kind that so many vectors get."""
    return kind if kind != "auto" else "flat" if count <= _EXACT_UP_TO else "hnsw"


class VectorIndex:
    """Vectors by number, searched by cosine."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, vectors: Vectors, kind: Kind) -> "VectorIndex":
        """Index unit vectors (count, dimension); the same vectors always give the same index."""
        import faiss  # here, because it takes 0.2 s

        dimension = vectors.shape[1]
        index: Any = faiss.IndexFlatIP(dimension)
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(dimension, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _HNSW_BUILD
        elif kind == "ivf":
            clusters = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors)))
            index = faiss.IndexIVFFlat(index, dimension, clusters, faiss.METRIC_INNER_PRODUCT)
            chosen = np.random.default_rng(0).permutation(len(vectors))[: _IVF_TRAINED_ON * clusters]
            index.cp.min_points_per_centroid = 1
            index.train(vectors[np.sort(chosen)])
        index.add(np.ascontiguousarray(vectors))
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> "VectorIndex":
        """An index from its file.

        Raises:
            ContentError: the file is no index of a kind that is written here.
        """
        import faiss

        with path.open("rb") as file:
            if file.read(4) not in _FOURCC:
                raise ContentError(f"{path}: not a vector index of a known kind: build it again")
        try:
            with _bounded(path.stat().st_size):
                return cls(faiss.read_index(str(path)))
        except RuntimeError as error:
            raise ContentError(f"{path}: cannot be read ({str(error).splitlines()[0]}): build it again") from None

    def write(self, path: Path) -> None:
        """Write the index to a file."""
        import faiss

        faiss.write_index(self._index, str(path))

    @property
    def count(self) -> int:
        """How many vectors it holds."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return int(self._index.d)

    def search(self, queries: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """Numbers and cosines (queries, k), the nearest first; number -1 where fewer were found."""
        parameters = _search_parameters(self._index, k)
        cosines, numbers = self._index.search(
            np.ascontiguousarray(queries), min(k, max(1, self.count)), params=parameters
        )
        return numbers, cosines


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """Let FAISS read no array of more bytes, and no list of more parts, than a file of this size can hold.

    The limits are those of the whole process; what others have set comes back.
    """
    faiss: Any = importlib.import_module("faiss")
    array, parts = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    faiss.set_deserialization_loop_limit(size)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(array)
        faiss.set_deserialization_loop_limit(parts)


def _search_parameters(index: Any, k: int) -> Any:
    faiss: Any = importlib.import_module("faiss")  # its hints lack half of what it has
    if isinstance(index, faiss.IndexHNSWFlat):
        return faiss.SearchParametersHNSW(efSearch=max(_HNSW_SEARCH, 2 * k))
    if isinstance(index, faiss.IndexIVFFlat):
        return faiss.SearchParametersIVF(nprobe=min(_IVF_PROBES, index.nlist))
    return None
