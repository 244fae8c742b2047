"""Embedders in GGUF files, run by llama.cpp: encoders such as BERT, and text models, which embed by their last layer.

Texts are tokenized on the calling thread and computed on the process's one thread for that, a batch at a time.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.local import amx
from engine.inference.local.compute import compute_thread
from engine.inference.local.context import USABLE_SEQUENCES
from engine.inference.local.gguf import read_header
from engine.inference.local.llama import LlamaModel, build_identity
from engine.inference.local.memory import available_memory, predict
from engine.inference.local.policy import available_cores
from engine.inference.local.pooling import PoolingContext
from engine.inference.local.shape import Shape
from engine.retrieval.embedder import Report, Vectors
from engine.retrieval.spans import token_spans

# llama.cpp computes a text model's output head for every row that it embeds, and keeps rows × vocabulary twice for it:
# 200 MB for SmolLM2-135M.
_ROWS = 512
_ROUND = 2048  # texts tokenized and sorted by length at a time
_LONGEST = 8192  # tokens; the longest chunk that a recipe may ask for

Tokens = NDArray[np.int32]


class GgufEmbedder:
    """A GGUF model as an `Embedder`."""

    def __init__(self, name: str, path: Path, sha256: str) -> None:
        """Load the model.

        Raises:
            ModelError: the file cannot be loaded, gives no vectors, or does not fit in memory.
        """
        self.name, self.sha256 = name, sha256
        self._header = read_header(path)
        self._check_memory(_ROWS)
        self._compute = compute_thread()
        self._model = self._compute.call(lambda: LlamaModel(path))
        self._context: PoolingContext | None = None
        self._before, self._after = self._frame()
        context = min(self._model.trained_context or _LONGEST, _LONGEST)
        self.longest = context - len(self._before) - len(self._after)
        try:
            self.dimension = self._compute.call(lambda: self._opened(min(_ROWS, context)).dimension)
        except ModelError:
            self.close()
            raise

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        """Unit vectors (texts, dimension). A text longer than `longest` tokens counts up to there.

        Raises:
            ModelError: the computation failed, or the longest text needs more memory than is free.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        done = 0
        for start in range(0, len(texts), _ROUND):
            tokens = [self._tokens(text) for text in texts[start : start + _ROUND]]
            for numbers in _batches(tokens, self._rows):
                batch = [tokens[number] for number in numbers]
                vectors[[start + number for number in numbers]] = self._compute.call(partial(self._pooled, batch))
                done += len(numbers)
                report(done, len(texts))
        return vectors

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token of a text, however long it is."""
        return token_spans(text, lambda part: [self._model.piece(token) for token in self._model.tokenize(part, False)])

    def close(self) -> None:
        """Free the model, once the batch that may be computed has ended."""
        self._compute.call(self._free)

    def _frame(self) -> tuple[Tokens, Tokens]:
        """What the vocabulary puts before and after a text."""
        bare, framed = self._model.tokenize("a", special=False), self._model.tokenize("a", special=False, framed=True)
        start = next((at for at in range(len(framed)) if framed[at : at + len(bare)] == bare), 0)
        return np.array(framed[:start], np.int32), np.array(framed[start + len(bare) :], np.int32)

    def _tokens(self, text: str) -> Tokens:
        """A text as it is computed, cut to fit; at least one token."""
        bare = np.array(self._model.tokenize(text, special=False)[: self.longest], dtype=np.int32)
        tokens = np.concatenate([self._before, bare, self._after])
        return tokens if len(tokens) else np.array([max(0, self._model.eos)], dtype=np.int32)

    @property
    def _rows(self) -> int:
        return self._context.rows if self._context else _ROWS

    def _check_memory(self, rows: int) -> None:
        shape = Shape(rows, rows, available_cores())
        with_amx = amx.is_built_in(build_identity())
        needed = predict(self._header, shape, outputs=rows, streams=0, amx=with_amx).total
        free = available_memory()
        if needed > free:
            raise ModelError(
                f"embedder {self.name} needs {needed / 1e9:.1f} GB for texts of {rows:,} tokens "
                f"and {free / 1e9:.1f} GB are free; take a smaller model or smaller chunks"
            )

    # ── on the compute thread ────────────────────────────────────────────────────────────────────

    def _pooled(self, tokens: Sequence[Tokens]) -> Vectors:
        """The unit vectors of one batch."""
        context = self._opened(max(self._rows, sum(map(len, tokens))))
        vectors = context.pooled(tokens)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths) & (lengths > 0)):
            raise ModelError(f"embedder {self.name} gives no direction for a text: its numbers are zero or not finite")
        unit: Vectors = vectors / lengths
        return unit

    def _opened(self, rows: int) -> PoolingContext:
        """A context with room for a batch: the one that is there, or a larger one instead."""
        if self._context is None or self._context.rows < rows:
            self._check_memory(rows)
            if self._context:
                self._context.close()
            self._context = None
            self._context = PoolingContext(self._model, rows, available_cores())
        return self._context

    def _free(self) -> None:
        if self._context:
            self._context.close()
            self._context = None
        self._model.close()


def _batches(tokens: Sequence[Tokens], rows: int) -> Iterator[list[int]]:
    """Numbers of texts, the longest first, as many to a batch as fit into its rows; a longer text alone."""
    batch: list[int] = []
    used = 0
    for number in sorted(range(len(tokens)), key=lambda each: -len(tokens[each])):
        if batch and (used + len(tokens[number]) > rows or len(batch) == USABLE_SEQUENCES):
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += len(tokens[number])
    if batch:
        yield batch
