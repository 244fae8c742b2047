"""Documents to chunks, chunks to an index, queries to passages."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import run
from engine.errors import ContentError, RunLocked, UsageError
from engine.retrieval import stored
from engine.retrieval.building import build
from engine.retrieval.chunks import Chunk, cut
from engine.retrieval.documents import Document, read_documents
from engine.retrieval.embedder import Report, Vectors
from engine.retrieval.fusion import fuse
from engine.retrieval.index import Index, open_index
from engine.retrieval.lexical import LexicalIndex, words
from engine.retrieval.recipe import Recipe, read_recipe, recipe_path, write_recipe
from engine.retrieval.stored import Manifest
from engine.retrieval.vectors import VectorIndex, kind_for

faiss = pytest.importorskip("faiss")


def spans(text: str) -> list[tuple[int, int]]:
    """Words as tokens."""
    found, place = [], 0
    for word in text.split():
        place = text.index(word, place)
        found.append((place, place + len(word)))
        place += len(word)
    return found


class Bags:
    """An embedder whose vectors count words by their hash: texts with the same words lie together."""

    def __init__(self, name: str = "bags", dimension: int = 64, sha256: str = "b" * 64) -> None:
        self.name, self.dimension, self.sha256, self.longest = name, dimension, sha256, 100
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        self.embedded += texts
        vectors = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in words(text):
                row[sum(word.encode()) * 31 % self.dimension] += 1
        report(len(texts), len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return spans(text)

    def close(self) -> None: ...


ROWS = [
    {"id": "tea", "title": "Tea", "text": "Tea is brewed from leaves in hot water."},
    {"id": "bread", "title": "Bread", "text": "Bread is baked from flour, water and salt."},
    {"id": "ships", "title": "Ships", "text": "Ships cross the sea with cargo and crew."},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return tmp_path


def made(name: str, recipe: Recipe, folder: Path, embedder: Bags) -> tuple[Path, Manifest]:
    return build(name, recipe, read_documents(recipe.docs, folder), folder, embedder)


def built(folder: Path, recipe: Recipe | None = None, embedder: Bags | None = None) -> Index:
    recipe = recipe or Recipe(docs=("docs.jsonl",))
    made("kb", recipe, folder, embedder or Bags())
    write_recipe(recipe, recipe_path("kb", folder))
    return open_index("kb", folder)


# ── documents ────────────────────────────────────────────────────────────────────────────────────


def test_documents_come_from_texts_and_rows_each_file_once(folder: Path) -> None:
    (folder / "notes" / "deep").mkdir(parents=True)
    (folder / "notes" / "a.md").write_text("Alpha\r\nbeta", "utf-8")
    (folder / "notes" / "deep" / "b.md").write_text("Gamma", "utf-8")
    found = read_documents(["notes/**/*.md", "*.jsonl", "notes/a.md"], folder)
    assert [document.id for document in found] == ["notes/a.md", "notes/deep/b.md", "tea", "bread", "ships"]
    assert found[0] == Document("notes/a.md", "Alpha\nbeta", "a")
    assert found[2].title == "Tea"


def test_a_folder_as_a_pattern_is_told_how_to_name_its_files(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(UsageError, match=r"a folder; name its files, as in '.*notes/\*\*/\*\.md'"):
        read_documents(["notes"], tmp_path)


def test_rows_without_an_id_are_named_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n', "utf-8")
    assert [document.id for document in read_documents(["r.jsonl"], tmp_path)] == ["r.jsonl:1", "r.jsonl:3"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"txt": "one"}\n', "r.jsonl:1: no field 'text'"),
        ('{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\n', "r.jsonl:2: another document is named 'a'"),
        ('{"text": "  "}\n', "no text in these documents"),
        ("{\n", "r.jsonl:1"),
        ('{"text": 5}\n', "r.jsonl:1: field 'text' is no text"),
    ],
)
def test_bad_documents_are_named_by_place(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(content, "utf-8")
    with pytest.raises(ContentError, match=says):
        read_documents(["r.jsonl"], tmp_path)


def test_a_pattern_without_a_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_documents(["*.md"], tmp_path)


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.text("abc é", max_size=6), max_size=40), st.integers(1, 12), st.data())
def test_chunks_cover_every_token_and_overlap_as_asked(parts: list[str], size: int, data: st.DataObject) -> None:
    text, overlap = " ".join(parts), data.draw(st.integers(0, size // 2))
    chunks = list(cut([Document("d", text)], spans, size, overlap, 100))
    tokens = spans(text)
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert {token for token in tokens for chunk in chunks if chunk.start <= token[0] < token[1] <= chunk.end} == set(
        tokens
    )
    assert all(len(spans(chunk.text)) <= size for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        assert len([token for token in tokens if after.start <= token[0] and token[1] <= before.end]) == overlap
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_a_chunk_knows_its_document_and_carries_its_title() -> None:
    (only,) = cut([Document("d", "one two", "Title")], spans, 8, 0, 100)
    assert (only.id, only.document, only.embedded) == ("d", "d", "Title\none two")
    assert [chunk.id for chunk in cut([Document("d", "a b c d e")], spans, 2, 0, 100)] == ["d#0", "d#1", "d#2"]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 40), st.integers(8, 40), st.data())
def test_a_chunk_fits_into_the_embedder_with_its_title(
    words_of_text: int, words_of_title: int, size: int, longest: int, data: st.DataObject
) -> None:
    text, title = " ".join(f"w{n}" for n in range(words_of_text)), " ".join(["title"] * words_of_title)
    overlap = data.draw(st.integers(0, size // 2))
    chunks = list(cut([Document("d", text, title)], spans, size, overlap, longest))
    assert {word for chunk in chunks for word in chunk.text.split()} == set(text.split())
    assert all(len(spans(chunk.text)) <= min(size, longest) for chunk in chunks)
    if words_of_title < longest // 2:
        assert all(len(spans(chunk.embedded)) <= longest for chunk in chunks)


def test_white_space_at_the_ends_of_tokens_is_no_part_of_a_chunk() -> None:
    def spaced(text: str) -> list[tuple[int, int]]:
        return [(place, min(place + 3, len(text))) for place in range(0, len(text), 3)]

    chunks = list(cut([Document("d", " ab cd    ef gh ")], spaced, 2, 0, 100))
    assert [(chunk.id, chunk.text) for chunk in chunks] == [("d#0", "ab cd"), ("d#1", "ef"), ("d#2", "gh")]
    assert list(cut([Document("d", " \n ")], spaced, 2, 0, 100)) == []


# ── the parts ────────────────────────────────────────────────────────────────────────────────────


def unit(count: int, dimension: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_every_kind_of_index_reads_back_and_the_exact_one_is_brute_force(tmp_path: Path, kind: str) -> None:
    vectors, queries = unit(300, 16), unit(20, 16, seed=1)
    index = VectorIndex.of(vectors, kind)
    index.write(tmp_path / "v.faiss")
    again = VectorIndex.read(tmp_path / "v.faiss")
    assert (again.count, again.dimension) == (300, 16)
    numbers, cosines = index.search(queries, 10)
    for found, other in zip((numbers, cosines), again.search(queries, 10), strict=True):
        np.testing.assert_array_equal(found, other)
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
    recall = np.mean([len(set(found) & set(right)) / 10 for found, right in zip(numbers, exact, strict=True)])
    assert recall == 1.0 if kind == "flat" else recall > 0.9


def test_more_passages_than_there_are_is_no_error() -> None:
    numbers, _ = VectorIndex.of(unit(3, 8), "flat").search(unit(1, 8), 10)
    assert sorted(numbers[0]) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"IxPQ....", b"IxFI", b"IHNf" + b"\xff" * 64])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.faiss").write_bytes(content)
    with pytest.raises(ContentError, match="build it again"):
        VectorIndex.read(tmp_path / "v.faiss")


def test_few_vectors_are_searched_exactly_and_many_by_a_graph() -> None:
    assert (kind_for("auto", 20_000), kind_for("auto", 20_001), kind_for("ivf", 5)) == ("flat", "hnsw", "ivf")


def test_words_find_the_texts_that_hold_them_best_first(tmp_path: Path) -> None:
    index = LexicalIndex.of(["red apple", "green apple tree", "blue sea", "apple apple apple"])
    index.write(tmp_path / "words")
    for one in (index, LexicalIndex.read(tmp_path / "words")):
        numbers, scores = one.search("Apple!", 10)
        assert set(numbers.tolist()) == {0, 1, 3}
        assert numbers[0] == 3
        assert list(scores) == sorted(scores, reverse=True)
        assert one.search("apple", 1)[0].tolist() == [3]
        assert one.search("unknown words", 10)[0].size == 0
        assert one.search("", 10)[0].size == 0


@given(st.lists(st.lists(st.integers(-1, 30), unique=True, max_size=12), max_size=4), st.integers(1, 10))
def test_fusion_ranks_by_the_sum_of_reciprocal_ranks(rankings: list[list[int]], most: int) -> None:
    numbers, scores = fuse([np.array(ranking, dtype=np.int64) for ranking in rankings], most)
    by_hand = {
        number: sum(1 / (61 + ranking.index(number)) for ranking in rankings if number in ranking)
        for ranking in rankings
        for number in ranking
        if number >= 0
    }
    assert len(numbers) == min(most, len(by_hand))
    assert scores == pytest.approx([by_hand[number] for number in numbers.tolist()])
    assert list(numbers) == sorted(by_hand, key=lambda number: (-by_hand[number], number))[:most]


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_is_read_as_it_was_written(tmp_path: Path) -> None:
    recipe = Recipe(docs=("kb/**/*.md", 'ü "x".jsonl'), chunk=64, overlap=8, embedder="other", kind="ivf")
    write_recipe(recipe, tmp_path / "kb.toml")
    assert read_recipe(tmp_path / "kb.toml") == recipe


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("docs = [", "not a recipe"),
        ("docs = []", "no pattern"),
        ('docs = ["a"]\nchunks = 3', "unknown key 'chunks': did you mean 'chunk'"),
        ('docs = ["a"]\nchunk = 3', "chunk: 3 tokens, expected"),
        ('docs = ["a"]\nchunk = 64\noverlap = 40', "overlap: 40 tokens, expected 0 to 32"),
        ('docs = ["a"]\nkind = "tree"', "kind"),
        ("docs = 3", "docs"),
        ("chunk = 64", "docs"),
        ("docs = 2026-01-01", "not a recipe"),
    ],
)
def test_a_bad_recipe_is_one_line_that_names_the_place(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "kb.toml").write_text(content, "utf-8")
    with pytest.raises(ContentError, match=says) as caught:
        read_recipe(tmp_path / "kb.toml")
    assert "kb.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an index"):
        recipe_path(name, tmp_path)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_query_finds_the_passage_that_answers_it(folder: Path, mode: str) -> None:
    found = built(folder).search(["What is baked from flour?", "cargo ships"], Bags(), 2, mode)
    assert [passages[0].document for passages in found] == ["bread", "ships"]
    assert all(len(passages) <= 2 for passages in found)
    assert all(list(passages) == sorted(passages, key=lambda each: -each.score) for passages in found)


def test_a_threshold_leaves_weak_passages_out(folder: Path) -> None:
    index, embedder = built(folder), Bags()
    cosines = [passage.score for passage in index.search(["hot tea"], embedder, 3, "dense")[0]]
    assert len(index.search(["hot tea"], embedder, 3, "dense", threshold=cosines[1])[0]) == 2
    assert index.search(["hot tea"], embedder, 3, "dense", threshold=1.1) == [[]]


def test_only_changed_chunks_are_embedded_again_and_old_builds_go(folder: Path) -> None:
    recipe, embedder = Recipe(docs=("docs.jsonl",)), Bags()
    first, manifest = made("kb", recipe, folder, embedder)
    assert (len(embedder.embedded), manifest.embedded, manifest.chunks) == (3, 3, 3)
    assert made("kb", recipe, folder, embedder)[0] == first
    assert len(embedder.embedded) == 3
    changed = [ROWS[0], {**ROWS[1], "text": "Bread rises."}, ROWS[2], {"id": "new", "text": "Something new."}]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed), "utf-8")
    second, manifest = made("kb", recipe, folder, embedder)
    assert embedder.embedded[3:] == ["Bread\nBread rises.", "Something new."]
    assert (manifest.embedded, manifest.chunks) == (2, 4)
    assert second != first
    assert not first.exists()
    fresh = Bags()
    elsewhere, _ = made("other", recipe, folder, fresh)
    np.testing.assert_array_equal(np.load(second / stored.VECTORS), np.load(elsewhere / stored.VECTORS))


def test_other_weights_embed_everything_again(folder: Path) -> None:
    made("kb", Recipe(docs=("docs.jsonl",)), folder, Bags())
    other = Bags(sha256="c" * 64)
    assert made("kb", Recipe(docs=("docs.jsonl",)), folder, other)[1].embedded == 3


def test_a_build_that_was_killed_is_not_there(folder: Path) -> None:
    recipe = Recipe(docs=("docs.jsonl",))
    place, _ = made("kb", recipe, folder, Bags())
    write_recipe(recipe, recipe_path("kb", folder))
    (place / stored.MANIFEST).unlink()
    with pytest.raises(ContentError, match=r"is not built: localgrad index build kb"):
        open_index("kb", folder)
    assert made("kb", recipe, folder, Bags())[1].embedded == 3
    open_index("kb", folder)


class Stopped(Bags):
    """Embeds so many texts and is then interrupted."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        if len(self.embedded) + len(texts) > self.most:
            raise KeyboardInterrupt
        return super().embed(texts, report)


def many(folder: Path, count: int) -> Recipe:
    """A recipe of so many documents that are all different."""
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(count)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Recipe(docs=("docs.jsonl",))


@pytest.mark.parametrize("cut", ["", "keys", "f32"])
def test_an_interrupted_build_leaves_no_index_and_the_next_goes_on(folder: Path, cut: str) -> None:
    recipe, first = many(folder, 700), Stopped(600)
    with pytest.raises(KeyboardInterrupt):
        made("kb", recipe, folder, first)
    assert len(first.embedded) == 512
    assert stored.built(folder / "kb") == []
    assert [path for path in (folder / "kb").iterdir() if path.is_dir()] == []
    kept = {path.suffix[1:]: path for path in (folder / "kb").glob("embedded-*")}
    assert set(kept) == {"keys", "f32"}
    if cut:  # as if the process had died while it wrote
        kept[cut].write_bytes(kept[cut].read_bytes()[:-3])
    second = Bags()
    place, manifest = made("kb", recipe, folder, second)
    assert manifest.embedded == len(second.embedded) == 700 - 512 + bool(cut)
    assert sorted(path.name for path in (folder / "kb").iterdir()) == [".lock", place.name]
    fresh, _ = made("fresh", recipe, folder, Bags())
    np.testing.assert_array_equal(np.load(place / stored.VECTORS), np.load(fresh / stored.VECTORS))


def test_vectors_that_never_reached_the_disk_are_computed_again(folder: Path) -> None:
    recipe = many(folder, 300)
    with pytest.raises(KeyboardInterrupt):
        made("kb", recipe, folder, Stopped(256))
    (path,) = (folder / "kb").glob("*.f32")
    path.write_bytes(path.read_bytes()[:-1024] + bytes(1024))  # four of 64 numbers
    assert made("kb", recipe, folder, Bags())[1].embedded == 44 + 4


def test_what_another_embedder_has_kept_is_not_taken(folder: Path) -> None:
    recipe = many(folder, 300)
    with pytest.raises(KeyboardInterrupt):
        made("kb", recipe, folder, Stopped(256))
    assert made("kb", recipe, folder, Bags(sha256="c" * 64))[1].embedded == 300


@pytest.mark.parametrize("name", [stored.CHUNKS, stored.VECTORS])
def test_a_damaged_build_is_built_again(folder: Path, name: str) -> None:
    recipe = Recipe(docs=("docs.jsonl",))
    place, _ = made("kb", recipe, folder, Bags())
    write_recipe(recipe, recipe_path("kb", folder))
    (place / name).write_bytes(b"damaged")
    again, manifest = made("kb", recipe, folder, Bags())
    assert (again, manifest.embedded) == (place, 3)
    open_index("kb", folder)


def test_only_one_process_builds_an_index_at_a_time(folder: Path) -> None:
    class Meanwhile(Bags):
        def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
            with pytest.raises(RunLocked, match=r"index kb is being worked on by process \d+"):
                made("kb", Recipe(docs=("docs.jsonl",)), folder, Bags())
            return super().embed(texts, report)

    made("kb", Recipe(docs=("docs.jsonl",)), folder, Meanwhile())


def test_an_index_of_another_version_is_not_taken(folder: Path) -> None:
    recipe = Recipe(docs=("docs.jsonl",))
    place, manifest = made("kb", recipe, folder, Bags())
    stored.write_manifest(replace(manifest, version=manifest.version + 1), place)
    assert stored.built(folder / "kb") == []


def test_a_recipe_that_changed_asks_for_a_build(folder: Path) -> None:
    built(folder)
    write_recipe(Recipe(docs=("docs.jsonl",), chunk=16, overlap=0), recipe_path("kb", folder))
    with pytest.raises(ContentError, match="has changed since it was built"):
        open_index("kb", folder)


@pytest.mark.parametrize("name", [stored.CHUNKS, stored.VECTORS])
def test_a_file_that_changed_or_is_gone_is_named(folder: Path, name: str) -> None:
    built(folder)
    ((place, _),) = stored.built(folder / "kb")
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ContentError, match=f"{name}: has changed since it was built"):
        open_index("kb", folder)
    (place / name).unlink()
    with pytest.raises(ContentError, match=f"{name}: missing"):
        open_index("kb", folder)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Bags("wide", dimension=32), "64 numbers (bags), wide gives 32"),
        (Bags("retrained", sha256="c" * 64), "built with bags (sha256 bbbbbbbbbbbb…), retrained has cccccccccccc…"),
    ],
)
def test_another_embedder_is_an_error_that_names_both(folder: Path, other: Bags, says: str) -> None:
    with pytest.raises(ContentError) as caught:
        built(folder).search(["tea"], other, 1, "dense")
    assert says in str(caught.value)


def test_chunks_with_the_same_text_share_a_vector(folder: Path) -> None:
    rows = [{"id": str(number), "text": "The same text."} for number in range(3)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    embedder = Bags()
    manifest = made("kb", Recipe(docs=("docs.jsonl",)), folder, embedder)[1]
    assert (manifest.chunks, manifest.embedded, len(embedder.embedded)) == (3, 1, 1)


def test_a_chunk_is_hashed_by_what_is_embedded() -> None:
    chunk = Chunk("a", "a", "T", 0, 3, "one")
    assert chunk.fingerprint == replace(chunk, id="b", start=5).fingerprint
    assert chunk.fingerprint != replace(chunk, title="U").fingerprint


# ── the command, with the real embedder ──────────────────────────────────────────────────────────


def test_an_index_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["query", "kb", "x"], ["info", "kb"], ["build", "kb"]):
        assert run(["index", *command, "--indexes", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "kb.toml: no such" in error


def test_info_says_whether_the_index_can_be_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(Recipe(docs=("docs.jsonl",)), recipe_path("kb", folder))
    command = ["index", "info", "kb", "--indexes", str(folder), "--json"]
    assert run(command) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["ready"] is False
    assert "is not built" in facts["why"]
    built(folder)
    assert run(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ready"], facts["why"]) == (True, None)
    (place,) = [path for path in (folder / "kb").iterdir() if path.is_dir()]
    (place / stored.CHUNKS).write_bytes(b"")
    assert run(command) == 1
    assert "has changed since it was built" in json.loads(capsys.readouterr().out)["why"]


@pytest.mark.model
def test_build_query_and_info_with_the_packaged_embedder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sentence_transformers")
    here = ["--indexes", str(tmp_path / "indexes"), "--json"]
    assert run(["index", "build", "kb", "--docs", str(folder / "docs.jsonl"), *here]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["chunks"], made["embedded"], made["dimension"], made["kind"]) == (3, 3, 384, "flat")
    assert run(["index", "build", "kb", *here]) == 0
    assert json.loads(capsys.readouterr().out)["embedded"] == 0
    for mode in ("dense", "lexical", "hybrid"):
        assert run(["index", "query", "kb", "How is bread made?", "-k", "1", "--mode", mode, *here]) == 0
        assert json.loads(capsys.readouterr().out)["passages"][0]["document"] == "bread"
    assert (
        run(["index", "query", "kb", "vessels that carry goods over the ocean", "-k", "1", "--mode", "dense", *here])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["passages"][0]["document"] == "ships"
    assert run(["index", "info", "kb", *here]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["built"][0]["chunks"], facts["ready"]) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["query", "kb"], "(localgrad index query --help)"),
        (["build", "kb", "--doc", "x"], "(localgrad index build --help)"),
    ],
)
def test_a_usage_error_names_the_help_that_there_is(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["index", *arguments]) == 2
    assert capsys.readouterr().err.rstrip().endswith(hint)


def test_an_empty_query_is_a_usage_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(folder)
    assert run(["index", "query", "kb", " ", "--indexes", str(folder)]) == 2
    assert "the query is empty" in capsys.readouterr().err
