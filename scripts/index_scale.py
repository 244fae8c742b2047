#!/usr/bin/env python3
"""What a large retrieval index takes: seconds and peak memory of building, opening and querying it.

    scripts/index_scale.py                       100,000 chunks; about 6 minutes on 2 cores
    scripts/index_scale.py --chunks 20000        fewer, which are searched exactly

Texts are drawn with a seed from the words of MiniLM's vocabulary, some frequent and most rare. Reading, cutting by
MiniLM's tokenizer, BM25, FAISS, files and hashes are the real ones. Vectors are not: MiniLM would take an hour and more
for so many chunks, so they are drawn with a seed around 500 centres, as embeddings of texts on some hundred subjects
lie, and MiniLM embeds 2,000 of the chunks, which says what the rest would take. Three processes: MiniLM's part, the
large build, opening and querying it. Peak memory is VmHWM of /proc/self/status, from the start of the process to the
end of a row; all of them load PyTorch and MiniLM, which cuts the chunks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.inference.models import find_model
from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Embedder, Report, Vectors
from engine.retrieval.index import open_index
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, recipe_path, write_recipe
from engine.store.keys import seed_of

_WORDS_OF_A_DOCUMENT = 2000  # nine chunks of 254 tokens that share 32
_CHUNKS_OF_A_DOCUMENT = 9
_MEASURED = 2000  # chunks that MiniLM embeds
_QUERIES = 100
_CENTRES, _SPREAD = 500, 0.04
_RECIPE = Recipe(docs=("docs.jsonl",))


class Clustered:
    """An embedder with MiniLM's tokenizer and vectors that depend on nothing but their text and lie in clusters."""

    def __init__(self, tokenizer: Embedder) -> None:
        self.name, self.sha256 = "clustered", "c" * 64
        self.dimension, self.longest = tokenizer.dimension, tokenizer.longest
        self.spans, self.close = tokenizer.spans, tokenizer.close
        self._centres = _normal(np.random.default_rng(0), (_CENTRES, self.dimension)) / np.sqrt(self.dimension)

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        """Unit vectors (texts, dimension)."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for number, text in enumerate(texts):
            rng = np.random.default_rng(seed_of(text))
            vectors[number] = self._centres[rng.integers(_CENTRES)] + _SPREAD * _normal(rng, (self.dimension,))
        report(len(texts), len(texts))
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def main() -> int:
    """Run every stage in a process of its own and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--stage", choices=sorted(_STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(_STAGES[options.stage](options.folder)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        size = _write_documents(Path(folder), options.chunks)
        print(f"{size / 1e6:.0f} MB of text\n\n| stage | seconds | peak memory, GB | |\n|---|---|---|---|", flush=True)
        for stage in _STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for name, row in json.loads(done.stdout).items():
                print(f"| {name} | {row['seconds']:.3g} | {row['peak'] / 1e9:.2f} | {row['says']} |", flush=True)
    return 0


def _embed(folder: Path) -> dict[str, object]:
    """MiniLM on a part of what is built after it."""
    embedder = open_embedder(DEFAULT_EMBEDDER, folder)
    documents = read_documents(_RECIPE.docs, folder)[: _MEASURED // _CHUNKS_OF_A_DOCUMENT]
    started = time.perf_counter()
    manifest = build("minilm", _RECIPE, documents, folder, embedder)[1]
    seconds = time.perf_counter() - started
    says = f"{manifest.chunks:,} chunks, {manifest.chunks / seconds:.1f} a second"
    return {"build with MiniLM": _row(seconds, says)}


def _build(folder: Path) -> dict[str, object]:
    """The large build."""
    embedder = Clustered(open_embedder(DEFAULT_EMBEDDER, folder))
    rows: dict[str, object] = {}
    started = time.perf_counter()
    documents = read_documents(_RECIPE.docs, folder)
    rows["read"] = _row(time.perf_counter() - started, f"{len(documents):,} documents")
    begun: list[tuple[str, float]] = []

    def note(text: str) -> None:
        stage, now = text.split(":")[0], time.perf_counter()
        if not begun or begun[-1][0] != stage:
            begun.append((stage, now))
            if len(begun) > 1:
                rows[begun[-2][0]] = _row(now - begun[-2][1], "")

    place, manifest = build("large", _RECIPE, documents, folder, embedder, note)
    rows[begun[-1][0]] = _row(time.perf_counter() - begun[-1][1], f"{manifest.kind}, BM25, files")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    write_recipe(_RECIPE, recipe_path("large", folder))
    return rows | {"build, in all": _row(manifest.seconds, f"{manifest.chunks:,} chunks, {size / 1e6:.0f} MB on disk")}


def _query(folder: Path) -> dict[str, object]:
    """Opening the large index, and queries one at a time; vectors of queries are those of its own chunks' texts."""
    embedder = Clustered(open_embedder(DEFAULT_EMBEDDER, folder))
    rows: dict[str, object] = {}
    started = time.perf_counter()
    index = open_index("large", folder)
    rows["open"] = _row(time.perf_counter() - started, "")
    rng = np.random.default_rng(1)
    with (folder / "docs.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"].split() for line, _ in zip(file, range(_QUERIES), strict=False)]
    queries = [" ".join(words[start : start + 8]) for words in texts for start in [int(rng.integers(len(words) - 8))]]
    for mode in ("dense", "lexical", "hybrid"):
        taken = []
        for query in queries:
            started = time.perf_counter()
            index.search([query], embedder, 10, mode)
            taken.append(time.perf_counter() - started)
        rows[f"query, {mode}"] = _row(float(np.median(taken)), f"median of {len(queries)}")
    return rows


_STAGES = {"embed": _embed, "build": _build, "query": _query}


def _write_documents(folder: Path, chunks: int) -> int:
    """Documents enough for so many chunks; their bytes."""
    listed = (find_model(DEFAULT_EMBEDDER, folder).path.parent / "vocab.txt").read_text("utf-8").split()
    words = [word for word in listed if word.isascii() and word.isalpha() and len(word) > 2]  # a token each
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(10, len(words) + 10)  # Zipf's law, without the few words that fill every text
    weights /= weights.sum()
    path = folder / "docs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(-(-chunks // _CHUNKS_OF_A_DOCUMENT)):
            text = " ".join(words[drawn] for drawn in rng.choice(len(words), _WORDS_OF_A_DOCUMENT, p=weights))
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    return os.path.getsize(path)


def _row(seconds: float, says: str) -> dict[str, object]:
    """A row of the table, with this process's peak so far in bytes."""
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    return {"seconds": seconds, "peak": peak, "says": says}


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Vectors:
    return rng.standard_normal(shape, dtype=np.float32)


if __name__ == "__main__":
    sys.exit(main())
