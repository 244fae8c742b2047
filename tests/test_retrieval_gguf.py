"""Embedders in GGUF files: characters of tokens, vectors beside another library's, and indexes built with them."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_gguf import write_bert

from engine.cli import run
from engine.errors import ContentError, ModelError, ModelMissing
from engine.inference.models import find_model
from engine.retrieval.building import build
from engine.retrieval.documents import Document
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Embedder
from engine.retrieval.index import open_index
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, recipe_path, write_recipe
from engine.retrieval.spans import token_spans

ROOT = Path(__file__).parents[1]
TEXTS = (
    "Bread is baked from flour, water and salt.",
    "Ships cross the sea with cargo and crew.",
    "Käse und Brötchen – für 3,50 €!",
    "naïve café résumé",
    "日本語のテキスト",
    "one\n\ntwo\tthree   four",
    "word " * 150,
    "x",
)

# ── spans ────────────────────────────────────────────────────────────────────────────────────────

any_text = st.text(st.characters(codec="utf-8"), max_size=40)


@given(any_text, st.lists(st.integers(0, 160), max_size=30), st.booleans())
def test_tokens_that_write_the_text_out_cover_it_whatever_bytes_they_are(
    text: str, cuts: list[int], spaced: bool
) -> None:
    raw = (b" " if spaced else b"") + text.encode()
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in itertools.pairwise(places)]
    spans = token_spans(text, lambda _: pieces)
    assert {place for start, end in spans for place in range(start, end)} == set(range(len(text)))
    assert all(start < end for start, end in spans)
    assert spans == sorted(spans)
    own = [piece for number, piece in enumerate(pieces) if number or not spaced or piece != b" "]
    assert len(spans) == len(own)
    for (start, end), piece in zip(spans, own, strict=True):
        assert piece.removeprefix(b" " if spaced and piece is pieces[0] else b"") in text[start:end].encode()


def wordpieces(text: str) -> list[bytes]:
    """Lower case, three letters to a piece; words with a letter beyond Latin are unknown, which has no bytes."""
    pieces = []
    for word in text.lower().split():
        known = all(ord(letter) < 0x250 for letter in word)
        pieces += re.findall(r".{1,3}", word) if known else [""]
    return [piece.encode() for piece in pieces]


@given(st.text("aB éß日\n?İΣ", max_size=30))
def test_tokens_that_change_the_text_cover_its_words(text: str) -> None:
    spans = token_spans(text, wordpieces)
    covered = {place for start, end in spans for place in range(start, end)}
    assert covered == {place for place, letter in enumerate(text) if not letter.isspace()}
    assert len(spans) == len(wordpieces(text))
    assert spans == sorted(spans)


def test_spans_by_hand() -> None:
    assert token_spans("Abcdé fgh 日本", wordpieces) == [(0, 3), (3, 5), (6, 9), (10, 12)]
    assert token_spans("a😀b", lambda _: [b"a\xf0\x9f", b"\x98", b"\x80b"]) == [(0, 2), (1, 2), (1, 3)]
    assert token_spans("", lambda _: []) == []


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_embedder_is_told_of_embedders_and_of_what_else_works(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing) as caught:
        open_embedder("minilm", tmp_path)
    assert str(caught.value) == (
        "unknown embedder 'minilm' (give a name, a folder of sentence-transformers, a path.gguf or hf:user/repo:QUANT)"
        ": did you mean 'minilm-l6-v2'?"
    )
    with pytest.raises(ModelMissing) as caught:
        open_embedder("q", tmp_path)
    assert "smollm2" not in str(caught.value)
    with pytest.raises(ModelMissing, match="unknown model 'q'") as caught:
        find_model("q", tmp_path)
    assert "minilm" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("gone.gguf", "no such model file"), ("noise.gguf", "not a GGUF file"), ("empty", "holds no model.safetensors")],
)
def test_what_is_no_embedder_is_one_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "noise.gguf").write_bytes(b"noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=says) as caught:
        open_embedder(name, tmp_path)
    assert "\n" not in str(caught.value)


# ── the real model ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def decoder() -> Iterator[Embedder]:
    """SmolLM2, a text model."""
    embedder = open_embedder("smollm2-135m", Path())
    yield embedder
    embedder.close()


@pytest.mark.model
def test_a_batch_gives_each_text_the_vector_it_has_alone(decoder: Embedder, capfd: pytest.CaptureFixture[str]) -> None:
    texts = [*TEXTS, *(f"text number {number}" for number in range(300)), "", " ", "long " * 900]
    seen: list[tuple[int, int]] = []
    together = decoder.embed(texts, lambda done, total: seen.append((done, total)))
    assert together.shape == (len(texts), 576)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for number in (*range(len(TEXTS)), 100, 307, len(texts) - 3, len(texts) - 2, len(texts) - 1):
        alone = decoder.embed([texts[number]])[0]
        assert alone @ together[number] > 0.9999, texts[number]
    assert len({tuple(np.round(vector, 4)) for vector in together[: len(TEXTS)]}) == len(TEXTS)
    assert seen[-1] == (len(texts), len(texts))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert capfd.readouterr().err == ""


@pytest.mark.model
def test_a_text_counts_up_to_the_longest(decoder: Embedder) -> None:
    longest, decoder.longest = decoder.longest, 50
    try:
        same = decoder.embed(["a b c d e " * 10, "a b c d e " * 10 + "something else entirely"])
        assert same[0] @ same[1] > 0.9999
    finally:
        decoder.longest = longest
    assert longest == 8192


@pytest.mark.model
@pytest.mark.parametrize("text", [*TEXTS, "a😀b👩‍👩‍👧 ", "tab\tend \x00 \ud800?"])
def test_spans_of_the_real_vocabulary_cover_the_text(decoder: Embedder, text: str) -> None:
    spans = decoder.spans(text)
    covered = {place for start, end in spans for place in range(start, end)}
    assert covered >= {place for place, letter in enumerate(text) if not letter.isspace()}
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)


@pytest.mark.model
def test_an_index_built_with_a_text_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers")
    rows = [{"id": name, "text": text} for name, text in zip(("bread", "ships"), TEXTS, strict=False)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    here = ["--indexes", str(tmp_path / "indexes"), "--json"]
    docs = ["--docs", str(tmp_path / "docs.jsonl")]
    assert run(["index", "build", "kb", *docs, "--embedder", "smollm2-135m", *here]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["embedder"], made["dimension"], made["embedded"]) == ("smollm2-135m", 576, 2)
    assert run(["index", "info", "kb", *here]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert run(["index", "query", "kb", TEXTS[1], "-k", "1", "--mode", "dense", *here]) == 0
    assert json.loads(capsys.readouterr().out)["passages"][0]["document"] == "ships"
    index = open_index("kb", tmp_path / "indexes")
    with pytest.raises(ContentError) as caught:
        index.search(["bread"], open_embedder(DEFAULT_EMBEDDER, tmp_path), 1, "dense")
    assert "576 numbers (smollm2-135m)" in str(caught.value)
    assert "minilm-l6-v2 gives 384" in str(caught.value)


@pytest.mark.model
def test_ctrl_c_keeps_what_was_embedded_and_leaves_no_index(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"{number} is followed by {number + 1}"} for number in range(600)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = [
        sys.executable,
        "-m",
        "engine",
        "index",
        "build",
        "kb",
        "--docs",
        "docs.jsonl",
        "--embedder",
        "smollm2-135m",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kept = tmp_path / "indexes" / "kb"
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 60
        while not [path for path in kept.glob("*.keys") if path.stat().st_size] and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        running.send_signal(signal.SIGINT)
        error = running.communicate()[1]
    assert running.returncode == 130, error
    assert time.monotonic() - started < 5
    assert "interrupted; chunks embedded so far are kept" in error
    assert not [path for path in kept.iterdir() if path.is_dir()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert made["chunks"] == 600
    assert made["embedded"] in (600 - 256, 600 - 512)
    assert sorted(path.name for path in kept.iterdir()) == [".lock", made["fingerprint"]]


# ── an encoder, beside sentence-transformers on the same weights ─────────────────────────────────


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    """The packaged MiniLM."""
    pytest.importorskip("sentence_transformers")
    return open_embedder(DEFAULT_EMBEDDER, Path())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    """The same in a GGUF file."""
    pytest.importorskip("safetensors")
    path = tmp_path_factory.mktemp("encoder") / "minilm.gguf"
    write_bert(find_model(DEFAULT_EMBEDDER, Path()).path.parent, path, pooling=1)
    embedder = open_embedder(str(path), Path())
    yield embedder
    embedder.close()


@pytest.mark.model
def test_an_encoder_gives_the_vectors_of_sentence_transformers(encoder: Embedder, minilm: Embedder) -> None:
    assert (encoder.dimension, encoder.longest) == (384, 510)
    cosines = np.sum(encoder.embed(TEXTS) * minilm.embed(TEXTS), axis=1)
    assert np.all(cosines > 0.9999), cosines


@pytest.mark.model
def test_a_file_that_does_not_say_how_to_pool_is_pooled_by_the_mean(
    tmp_path: Path, encoder: Embedder, minilm: Embedder
) -> None:
    folder = find_model(DEFAULT_EMBEDDER, Path()).path.parent
    cosines = {}
    for pooling in (None, 2):  # nothing, and the first token
        path = tmp_path / f"{pooling}.gguf"
        write_bert(folder, path, pooling)
        embedder = open_embedder(path.name, tmp_path)
        cosines[pooling] = float(np.min(np.sum(embedder.embed(TEXTS) * minilm.embed(TEXTS), axis=1)))
        embedder.close()
    assert cosines[None] > 0.9999
    assert cosines[2] < 0.99


@pytest.mark.model
def test_a_model_that_only_ranks_is_no_embedder(tmp_path: Path) -> None:
    write_bert(find_model(DEFAULT_EMBEDDER, Path()).path.parent, tmp_path / "ranks.gguf", pooling=4)
    with pytest.raises(ModelError, match="ranks pairs of texts and gives no vectors"):
        open_embedder("ranks.gguf", tmp_path)


@pytest.mark.model
@pytest.mark.parametrize("text", TEXTS)
def test_an_encoder_cuts_texts_as_sentence_transformers_does(encoder: Embedder, minilm: Embedder, text: str) -> None:
    assert encoder.spans(text) == minilm.spans(text)


@pytest.mark.model
def test_both_find_the_same_passages(encoder: Embedder, minilm: Embedder, tmp_path: Path) -> None:
    recipe = Recipe(docs=("unused",))
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    orders = {}
    for name, embedder in (("gguf", encoder), ("torch", minilm)):
        build(name, recipe, documents, tmp_path, embedder)
        write_recipe(recipe, recipe_path(name, tmp_path))
        found = open_index(name, tmp_path).search(["vessels on the ocean", "cheese"], embedder, 4, "dense")
        orders[name] = [[passage.id for passage in passages] for passages in found]
    assert orders["gguf"] == orders["torch"]
