"""A llama.cpp context that gives one vector for each sequence of a batch: what its tokens come to, pooled.

Encoders, such as BERT, have no cache and see a text from both ends; decoders have one, which every batch begins anew.
Either way a sequence lies in one micro-batch, or it would be pooled in parts. Not thread-safe, as `context.py`.
"""

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.local.context import PAD_TOKEN, USABLE_SEQUENCES, Batch
from engine.inference.local.llama import LlamaModel, last_complaint
from engine.inference.local.shape import MAX_SEQUENCES

_OK = 0
# Attention of fewer rows sums values in the cache's F16: a text alone is then 1e-4 (in cosine) from itself in a batch,
# and less than 1e-5 where a small batch is filled up (SmolLM2-135M).
_TILE = 64
_SCRATCH = np.array([MAX_SEQUENCES - 1], dtype=np.int32)
_NONE, _RANK = "0", "4"  # llama.cpp's numbers of these ways of pooling


class PoolingContext:
    """Batches of at most `rows` tokens, of at most `sequences` texts."""

    def __init__(self, model: LlamaModel, rows: int, threads: int) -> None:
        """Allocate the context; its rows are rounded up. Tokens are pooled as the file says, or else by their mean.

        Raises:
            ModelError: there is not enough memory, or the model gives scores and no vectors.
        """
        pooling = pooling_of(model)
        if pooling == _RANK:
            raise ModelError(f"{model.path}: this model ranks pairs of texts and gives no vectors; take an embedder")
        parameters = llama_cpp.llama_context_default_params()
        parameters.embeddings = True
        if pooling in (None, _NONE):
            parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
        self.rows, self.sequences = -(-rows // MAX_SEQUENCES) * MAX_SEQUENCES, USABLE_SEQUENCES
        # Rows that are no multiple of the sequences abort the process: of a mean, some would not be reserved.
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = self.rows
        parameters.n_seq_max = MAX_SEQUENCES
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True
        parameters.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise ModelError(f"{model.path}: no context of {self.rows:,} tokens for embedding ({last_complaint()})")
        self.dimension = int(llama_cpp.llama_model_n_embd_out(model.handle))
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = Batch(self.rows)

    def pooled(self, sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """The vectors (sequences, dimension) of one batch, as they are: not of length 1.

        Raises:
            ModelError: the computation failed.
        """
        assert len(sequences) <= self.sequences  # more would abort the process
        assert sum(map(len, sequences)) <= self.rows
        for number, tokens in enumerate(sequences):
            self._batch.add(tokens, 0, np.array([number], dtype=np.int32), wants_logits=True)
        if self._memory:
            self._fill_up()
            llama_cpp.llama_memory_clear(self._memory, False)
            status = llama_cpp.llama_decode(self.handle, self._batch.struct())
        else:
            status = llama_cpp.llama_encode(self.handle, self._batch.struct())
        self._batch.clear()
        if status != _OK:
            raise ModelError(f"embedding failed with status {status} ({last_complaint()})")
        return np.stack([self._vector(number) for number in range(len(sequences))])

    def _fill_up(self) -> None:
        """Fill a small batch up with rows of a sequence of their own, for the kernel that large ones get."""
        missing = range(_TILE - self._batch.rows)
        if missing:
            self._batch.add(np.repeat(PAD_TOKEN, len(missing)), 0, _SCRATCH, wants_logits=True)

    def _vector(self, number: int) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_embeddings_seq(self.handle, number)
        if not pointer:
            raise ModelError("this model gives no vector for a text; take an embedder")
        address = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        return np.ctypeslib.as_array((ctypes.c_float * self.dimension).from_address(address)).copy()

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None


def pooling_of(model: LlamaModel) -> str | None:
    """llama.cpp's number of the way of pooling that the file names; None where it names none."""
    return model.metadata(f"{model.metadata('general.architecture')}.pooling_type")
