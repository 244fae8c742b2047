"""Retrieval at size: recall and speed of the approximate indexes, and recall on a public corpus."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Vectors
from engine.retrieval.index import open_index
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, recipe_path, write_recipe
from engine.retrieval.vectors import VectorIndex

pytest.importorskip("faiss")

DATA = Path(__file__).parents[2] / "shared" / "data" / "hotpotqa_ctx"


def clustered(count: int, seed: int, centres: Vectors) -> Vectors:
    """Unit vectors around centres, as embeddings of texts on some hundred subjects lie."""
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, len(centres), count)] + rng.normal(0, 0.04, (count, centres.shape[1])).astype(
        np.float32
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_find_what_the_exact_one_finds(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """100,000 vectors of 384 numbers, written and read back."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1 / np.sqrt(384), (500, 384)).astype(np.float32)
    vectors, queries = clustered(100_000, 1, centres), clustered(200, 2, centres)
    exact = VectorIndex.of(vectors, "flat")
    started = time.perf_counter()
    VectorIndex.of(vectors, kind).write(tmp_path / "vectors.faiss")
    other = VectorIndex.read(tmp_path / "vectors.faiss")
    build_s = time.perf_counter() - started
    seconds = {}
    for index in (exact, other):
        started = time.perf_counter()
        for query in queries:
            index.search(query[None], 10)
        seconds[index] = time.perf_counter() - started
    right, found = exact.search(queries, 10)[0], other.search(queries, 10)[0]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(right, found, strict=True)])
    with capsys.disabled():
        print(f"\n{kind}: recall@10 {recall:.3f}, {seconds[exact] / seconds[other]:.1f}×; {build_s:.0f} s to build")
    assert recall >= 0.95
    assert seconds[other] < seconds[exact]


@pytest.mark.model
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public set hotpotqa_ctx in ../shared/data")
def test_recall_on_a_public_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Share of the two supporting articles among the first ten passages, over 100 questions."""
    recipe = Recipe(docs=(str(DATA / "corpus.jsonl"),))
    embedder = open_embedder(DEFAULT_EMBEDDER, tmp_path)
    build("hotpot", recipe, read_documents(recipe.docs, tmp_path), tmp_path, embedder)
    write_recipe(recipe, recipe_path("hotpot", tmp_path))
    index = open_index("hotpot", tmp_path)
    rows = [
        json.loads(line)
        for name in ("train", "test")
        for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    recall = {}
    for mode in ("dense", "lexical", "hybrid"):
        found = index.search([row["input"] for row in rows], embedder, 10, mode)
        shares = []
        for row, passages in zip(rows, found, strict=True):
            wanted = set(row["supporting_titles"])
            shares.append(len(wanted & {passage.title for passage in passages}) / len(wanted))
        recall[mode] = float(np.mean(shares))
    with capsys.disabled():
        print("\n" + ", ".join(f"{mode} {value:.3f}" for mode, value in recall.items()))
    assert recall["hybrid"] > 0.6
    assert recall["hybrid"] >= min(recall["dense"], recall["lexical"])
