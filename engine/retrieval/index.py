"""An index, opened: passages for a query by meaning, by words, or by both."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContentError
from engine.records import Passage, RetrievalMode
from engine.retrieval import stored
from engine.retrieval.chunks import Chunk
from engine.retrieval.embedder import Embedder
from engine.retrieval.fusion import fuse
from engine.retrieval.lexical import LexicalIndex
from engine.retrieval.recipe import read_recipe, recipe_path
from engine.retrieval.stored import Manifest
from engine.retrieval.vectors import VectorIndex

MODES: tuple[RetrievalMode, ...] = get_args(RetrievalMode)

_DEPTH = 4  # how many times k each ranking goes down before they are fused
_LEAST_DEPTH = 50


class Index:
    """Chunks with their vectors and their words."""

    def __init__(
        self, manifest: Manifest, chunks: Sequence[Chunk], vectors: VectorIndex, lexical: LexicalIndex
    ) -> None:
        self.manifest = manifest
        self._chunks, self._vectors, self._lexical = chunks, vectors, lexical

    def search(
        self,
        queries: Sequence[str],
        embedder: Embedder | None,
        k: int,
        mode: RetrievalMode = "hybrid",
        threshold: float | None = None,
    ) -> list[list[Passage]]:
        """At most k passages for each query, the best first; with a threshold none of a lower score.

        `embedder` may be None where the mode is lexical.

        Raises:
            ContentError: the embedder is not the one that the index was built with.
        """
        rankings = [self._ranked(query, k) for query in queries] if mode != "dense" else []
        if mode == "lexical":
            return [self._passages(numbers, scores, k, threshold) for numbers, scores in rankings]
        if embedder is None:
            raise ContentError(f"mode {mode} needs the embedder {self.manifest.embedder}")
        check_embedder(self.manifest, embedder)
        depth = k if mode == "dense" else max(_LEAST_DEPTH, _DEPTH * k)
        numbers, cosines = self._vectors.search(embedder.embed(queries), depth)
        if mode == "dense":
            return [self._passages(*found, k, threshold) for found in zip(numbers, cosines, strict=True)]
        fused = [fuse([dense, words], k) for dense, (words, _) in zip(numbers, rankings, strict=True)]
        return [self._passages(*found, k, threshold) for found in fused]

    def _ranked(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._lexical.search(query, max(_LEAST_DEPTH, _DEPTH * k))

    def _passages(
        self, numbers: NDArray[np.int64], scores: NDArray[np.float32], k: int, threshold: float | None
    ) -> list[Passage]:
        found = []
        for number, exact in zip(numbers.tolist(), scores.tolist(), strict=True):
            score = round(exact, 6)
            if number >= 0 and (threshold is None or score >= threshold):
                chunk = self._chunks[number]
                found.append(Passage(chunk.id, chunk.document, chunk.title, chunk.text, score))
        return found[:k]


def open_index(name: str, folder: Path) -> Index:
    """The built index of a recipe.

    Raises:
        UsageError: there is no such recipe.
        ContentError: it was not built, was built by another recipe, or is damaged.
    """
    place, manifest = find_build(name, folder)
    flat = manifest.kind == "flat"
    stored.check_files(place, manifest, but="" if flat else stored.VECTORS)
    chunks = stored.read_chunks(place / stored.CHUNKS)
    vectors = VectorIndex.of(stored.open_vectors(place), "flat") if flat else VectorIndex.read(place / stored.GRAPH)
    for what, number in (("chunks", len(chunks)), ("vectors", vectors.count)):
        if number != manifest.chunks:
            raise ContentError(f"{place}: {number} {what}, its manifest says {manifest.chunks}: build it again")
    return Index(manifest, chunks, vectors, LexicalIndex.read(place / stored.WORDS))


def find_build(name: str, folder: Path) -> tuple[Path, Manifest]:
    """Where the build of a recipe as it is now lies, and what it says of itself. Opens nothing.

    Raises:
        UsageError: there is no such recipe.
        ContentError: it was not built, or was built by another recipe.
    """
    path = recipe_path(name, folder)
    recipe = read_recipe(path)
    builds = stored.built(folder / name)
    for place, manifest in builds:
        if manifest.recipe == _plain(asdict(recipe)):
            return place, manifest
    why = "has changed since it was built" if builds else "is not built"
    raise ContentError(f"{path}: {why}: localgrad index build {name}")


def check_embedder(manifest: Manifest, embedder: Embedder) -> None:
    """See that queries and chunks are embedded by the same weights.

    Raises:
        ContentError: they are not; the message names both.
    """
    if embedder.dimension != manifest.dimension:
        raise ContentError(
            f"the index holds vectors of {manifest.dimension} numbers ({manifest.embedder}), "
            f"{embedder.name} gives {embedder.dimension}: build the index again"
        )
    if embedder.sha256 != manifest.embedder_sha256:
        raise ContentError(
            f"the index was built with {manifest.embedder} (sha256 {manifest.embedder_sha256[:12]}…), "
            f"{embedder.name} has {embedder.sha256[:12]}…: build the index again"
        )


def _plain(recipe: dict[str, object]) -> dict[str, object]:
    """A recipe as JSON gives it back: tuples as lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in recipe.items()}
