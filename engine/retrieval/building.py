"""Building an index: only chunks that no earlier build of the same name has embedded are embedded."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from engine.retrieval import stored
from engine.retrieval.chunks import Chunk, cut
from engine.retrieval.documents import Document
from engine.retrieval.embedder import Embedder, Vectors
from engine.retrieval.lexical import LexicalIndex
from engine.retrieval.recipe import Recipe
from engine.retrieval.stored import Manifest
from engine.retrieval.vectors import VectorIndex, kind_for

Report = Callable[[str], None]


def build(
    name: str, recipe: Recipe, documents: Sequence[Document], folder: Path, embedder: Embedder,
    report: Report = lambda text: None,
) -> tuple[Path, Manifest]:  # fmt: skip
    """Build the index of a recipe's documents below `folder`; where and what it is. Earlier builds are deleted.

    A build that is there already is taken as it is.
    """
    started = time.perf_counter()
    report("cutting")
    size = min(recipe.chunk, embedder.longest)
    chunks = list(cut(documents, embedder.spans, size, min(recipe.overlap, size // 2)))
    fingerprint = stored.fingerprint(recipe, embedder.sha256, chunks)
    place, earlier = folder / name / fingerprint, stored.built(folder / name)
    if known := next((manifest for path, manifest in earlier if path.name == fingerprint), None):
        return place, replace(known, embedded=0, seconds=time.perf_counter() - started)
    vectors, embedded = _vectors(chunks, embedder, earlier, report)
    kind = kind_for(recipe.kind, len(chunks))
    partial = place.with_name(f"{fingerprint}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    report("indexing")
    np.save(partial / stored.VECTORS, vectors, allow_pickle=False)
    if kind != "flat":
        VectorIndex.of(vectors, kind).write(partial / stored.GRAPH)
    LexicalIndex.of([chunk.embedded for chunk in chunks]).write(partial / stored.WORDS)
    stored.write_chunks(chunks, partial / stored.CHUNKS)
    manifest = Manifest(
        fingerprint, asdict(recipe), embedder.name, embedder.sha256, embedder.dimension, len(documents), len(chunks),
        kind, embedded, time.perf_counter() - started, stored.hashes(partial),
    )  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)  # unfinished, or it would have been taken
    partial.rename(place)
    stored.write_manifest(manifest, place)
    for path, _ in earlier:
        shutil.rmtree(path, ignore_errors=True)
    return place, manifest


def _vectors(
    chunks: Sequence[Chunk], embedder: Embedder, earlier: Sequence[tuple[Path, Manifest]], report: Report
) -> tuple[Vectors, int]:
    """The vectors of chunks, and how many had to be computed."""
    known = _known(embedder, earlier)
    new = {chunk.fingerprint: chunk.embedded for chunk in chunks if chunk.fingerprint not in known}
    found = embedder.embed(list(new.values()), lambda done, total: report(f"embedding: {done:,} of {total:,} chunks"))
    known |= dict(zip(new, found, strict=True))
    vectors = np.empty((len(chunks), embedder.dimension), dtype=np.float32)
    for number, chunk in enumerate(chunks):
        vectors[number] = known[chunk.fingerprint]
    return vectors, len(new)


def _known(embedder: Embedder, earlier: Sequence[tuple[Path, Manifest]]) -> dict[str, Vectors]:
    """Vectors of the last build by the same weights, by the fingerprint of their chunk."""
    for path, manifest in earlier:
        if manifest.embedder_sha256 == embedder.sha256 and manifest.dimension == embedder.dimension:
            stored.check_files(path, manifest)
            vectors = np.load(path / stored.VECTORS, mmap_mode="r", allow_pickle=False)
            chunks = stored.read_chunks(path / stored.CHUNKS)
            return {chunk.fingerprint: vector for chunk, vector in zip(chunks, vectors, strict=True)}
    return {}
