"""Building an index: only chunks that no earlier build of the same name has embedded are embedded.

One process at a time builds an index. What it has embedded is on disk at once: a build that was stopped goes on.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from engine.retrieval import stored
from engine.retrieval.chunks import Chunk, cut
from engine.retrieval.documents import Document
from engine.retrieval.embedded import EmbeddedChunks
from engine.retrieval.embedder import Embedder, Vectors
from engine.retrieval.lexical import LexicalIndex
from engine.retrieval.recipe import Recipe
from engine.retrieval.stored import Manifest
from engine.retrieval.vectors import VectorIndex, kind_for
from engine.store.locks import locked

Report = Callable[[str], None]

_ROUND = 256  # chunks embedded between two writes to disk


def build(
    name: str, recipe: Recipe, documents: Sequence[Document], folder: Path, embedder: Embedder,
    report: Report = lambda text: None,
) -> tuple[Path, Manifest]:  # fmt: skip
    """Build the index of a recipe's documents below `folder`; where and what it is. Earlier builds are deleted.

    A whole build that is there already is taken as it is.

    Raises:
        RunLocked: another process is building this index.
    """
    started = time.perf_counter()
    with locked(folder / name / ".lock", f"index {name}"):
        report("cutting")
        chunks = list(cut(documents, embedder.spans, recipe.chunk, recipe.overlap, embedder.longest))
        fingerprint = stored.fingerprint(recipe, embedder.sha256, chunks)
        earlier = [each for each in stored.built(folder / name) if stored.is_whole(*each)]
        for place, known in earlier:
            if place.name == fingerprint:
                return place, replace(known, embedded=0, seconds=time.perf_counter() - started)
        kind = kind_for(recipe.kind, len(chunks))
        with _new_folder(folder / name / fingerprint) as place:
            embedded = _embed(chunks, embedder, earlier, place, report)
            report("indexing")
            if kind != "flat":
                VectorIndex.of(stored.open_vectors(place), kind).write(place / stored.GRAPH)
            LexicalIndex.of(chunk.embedded for chunk in chunks).write(place / stored.WORDS)
            stored.write_chunks(chunks, place / stored.CHUNKS)
            manifest = Manifest(
                fingerprint, asdict(recipe), embedder.name, embedder.sha256, embedder.dimension, len(documents),
                len(chunks), kind, embedded, time.perf_counter() - started, stored.hashes(place),
            )  # fmt: skip
            stored.write_manifest(manifest, place)
        stored.delete_all_but(folder / name, fingerprint)
        return folder / name / fingerprint, manifest


@contextmanager
def _new_folder(place: Path) -> Iterator[Path]:
    """A folder to build in that gets its name when all is done, and is deleted when something goes wrong."""
    unfinished = place.with_name(f"{place.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        shutil.rmtree(place, ignore_errors=True)  # damaged, or it would have been taken
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _embed(
    chunks: Sequence[Chunk], embedder: Embedder, earlier: Sequence[tuple[Path, Manifest]], place: Path, report: Report
) -> int:
    """Write the vectors of chunks; how many of them had to be computed."""
    old, kept = _last_build(embedder, earlier), EmbeddedChunks(place.parent, embedder.sha256, embedder.dimension)
    new = {chunk.fingerprint: chunk.embedded for chunk in chunks}
    new = {key: text for key, text in new.items() if key not in old and key not in kept}
    keys = list(new)
    for start in range(0, len(keys), _ROUND):
        part = keys[start : start + _ROUND]
        kept.add(part, embedder.embed([new[key] for key in part], partial(_say, report, start, len(new))))
    computed = kept.read()
    vectors = stored.new_vectors(place, len(chunks), embedder.dimension)
    for number, chunk in enumerate(chunks):
        vectors[number] = old[chunk.fingerprint] if chunk.fingerprint in old else computed[chunk.fingerprint]
    vectors.flush()
    return len(new)


def _say(report: Report, before: int, total: int, done: int, _: int) -> None:
    report(f"embedding: {before + done:,} of {total:,} chunks")


def _last_build(embedder: Embedder, earlier: Sequence[tuple[Path, Manifest]]) -> Mapping[str, Vectors]:
    """Vectors of the last build by the same weights, by the fingerprint of their chunk."""
    for path, manifest in earlier:
        if manifest.embedder_sha256 == embedder.sha256 and manifest.dimension == embedder.dimension:
            chunks = stored.read_chunks(path / stored.CHUNKS)
            return {chunk.fingerprint: vector for chunk, vector in zip(chunks, stored.open_vectors(path), strict=True)}
    return {}
