"""A llama.cpp context: one KV cache, unified or split into streams, and one batch.

Rows are added in segments and decoded together. What would abort the process is checked before llama.cpp is called.
Nothing here is thread-safe; one owner thread calls all of it.
"""

import ctypes
import time
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.local.llama import LlamaModel, last_complaint
from engine.inference.local.shape import KV_TYPES, MAX_SEQUENCES, Shape
from engine.inference.local.threads import Threads

Ids = NDArray[np.int32]

USABLE_SEQUENCES = MAX_SEQUENCES - 1  # the last one is for padding
_SCRATCH = np.array([MAX_SEQUENCES - 1], dtype=np.int32)
_OK = 0
# A batch is a promise not to listen for so long: to new jobs, to Ctrl-C.
_PATIENCE_S = 1.0
_FEWEST_ROWS = 32


class LlamaContext:
    """A KV cache and one batch. A row is a token at a position of one or more sequences.

    In a unified cache sequences share cells. With `streams` it is split: each sequence has an equal part of the cells
    to itself, rows belong to one sequence, and nothing is shared; what fills a batch up is then left to the caller.
    """

    def __init__(self, model: LlamaModel, shape: Shape, streams: int | None = None) -> None:
        """Allocate the context.

        Raises:
            ModelError: there is not enough memory for it, or the model does not take this shape.
        """
        parameters = llama_cpp.llama_context_default_params()
        self._padding = min(shape.padding, shape.batch_rows) if streams is None else 0
        self._tile = shape.tile if streams is None else 0
        spare = max(self._padding, self._tile)
        # A batch of fewer rows than there are sequences aborts the process, and so does one larger than the cache.
        batch = max(shape.batch_rows + spare, streams or MAX_SEQUENCES)
        parameters.n_batch = parameters.n_ubatch = batch
        parameters.n_ctx = max(shape.cells + spare, batch)
        parameters.n_seq_max = streams or MAX_SEQUENCES
        parameters.n_threads = parameters.n_threads_batch = shape.threads
        parameters.type_k = KV_TYPES[shape.key_type].ggml_type
        parameters.type_v = KV_TYPES[shape.value_type].ggml_type
        parameters.flash_attn_type = int(shape.flash_attention)
        parameters.kv_unified = streams is None
        parameters.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise ModelError(
                f"no memory for a context of {shape.cells:,} tokens ({last_complaint()}); lower runtime.context"
            )
        self.unified, self.cells = streams is None, shape.cells
        self.batch_rows = self.affordable_rows = shape.batch_rows
        self._vocabulary = model.vocabulary
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = Batch(shape.batch_rows + spare)
        self._threads = Threads(shape.threads if model.gpu_layers == 0 else 1)
        self.decoded_rows = self.decoded_outputs = 0
        self.decode_seconds = 0.0

    @property
    def rows(self) -> int:
        """Rows in the batch so far."""
        return self._batch.rows

    @property
    def outputs(self) -> int:
        """Rows in the batch so far whose logits are wanted."""
        return self._batch.outputs

    def add(self, tokens: Ids, position: int, sequences: Ids, wants_logits: bool) -> None:
        """Put consecutive tokens into the batch, the first at `position`; `wants_logits` is about the last of them."""
        assert self._batch.rows + len(tokens) <= self.batch_rows  # more would abort the process
        self._batch.add(tokens, position, sequences, wants_logits)

    def decode(self) -> NDArray[np.float32]:
        """Compute the batch and empty it. Logits (segments that wanted them, vocabulary), in the order of adding.

        The array is llama.cpp's own memory: read it before the next call.

        Raises:
            ModelError: the cache is full or the computation failed.
        """
        outputs = self._batch.outputs
        self.decoded_rows += self._batch.rows
        self.decoded_outputs += outputs
        padded, rows = self._pad(), self._batch.rows
        started, computed = time.perf_counter(), time.process_time()
        status = llama_cpp.llama_decode(self.handle, self._batch.struct())
        address = ctypes.cast(llama_cpp.llama_get_logits(self.handle), ctypes.c_void_p).value if status == _OK else 0
        seconds = time.perf_counter() - started
        self.decode_seconds += seconds
        if self._threads.measure(started + seconds, seconds, time.process_time() - computed):
            llama_cpp.llama_set_n_threads(self.handle, self._threads.count, self._threads.count)
        if rows >= _FEWEST_ROWS:
            affordable = int(rows * _PATIENCE_S / max(seconds, 1e-6))
            self.affordable_rows = min(self.batch_rows, max(_FEWEST_ROWS, affordable))
        self._batch.clear()
        if padded:
            self.drop(MAX_SEQUENCES - 1)
        if status != _OK:
            raise ModelError(f"llama_decode failed with status {status} ({last_complaint()})")
        if outputs == 0:
            return np.empty((0, self._vocabulary), dtype=np.float32)
        memory = (ctypes.c_float * (outputs * self._vocabulary)).from_address(address or 0)
        return np.ctypeslib.as_array(memory).reshape(outputs, self._vocabulary)

    def _pad(self) -> bool:
        """Fill a small batch up with rows of a sequence of their own."""
        batch = self._batch
        missing = max(0, self._padding - (min(batch.rows, batch.outputs) if batch.outputs else batch.rows))
        for position in range(missing):
            batch.add(PAD_TOKEN, position, _SCRATCH, wants_logits=batch.outputs > 0)
        if self._tile <= 4 * batch.rows:
            for position in range(missing, missing + self._tile - batch.rows):
                batch.add(PAD_TOKEN, position, _SCRATCH, wants_logits=False)
                missing += 1
        return missing > 0

    def share(self, source: int, target: int, end: int, start: int = 0) -> None:
        """Let `target` hold the tokens of `source` from `start` to `end` (-1: all) too; metadata only.

        Only in a unified cache: in a split one a part of a sequence aborts the process.
        """
        assert self.unified
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def drop(self, sequence: int, start: int = 0, end: int = -1) -> None:
        """Forget the tokens of a sequence from `start` to `end` (-1: all); cells that no other one uses become free."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, end)

    def save(self, sequence: int) -> NDArray[np.uint8]:
        """A copy of what a sequence holds, outside the cache."""
        state = np.empty(llama_cpp.llama_state_seq_get_size(self.handle, sequence), dtype=np.uint8)
        llama_cpp.llama_state_seq_get_data(self.handle, _bytes_of(state), len(state), sequence)
        return state

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> None:
        """Let an empty sequence hold what `save` gave, in this context or another of its shape.

        Raises:
            ModelError: there are not enough free cells.
        """
        if not llama_cpp.llama_state_seq_set_data(self.handle, _bytes_of(state), len(state), sequence):
            raise ModelError(f"a saved beginning could not be restored ({last_complaint()})")

    def empty(self) -> None:
        """Forget everything, as if new."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None


PAD_TOKEN = np.zeros(1, dtype=np.int32)


def _bytes_of(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


class Batch:
    """The arrays of a `llama_batch`, held by numpy so that a segment of any length costs a few assignments."""

    def __init__(self, rows: int) -> None:
        self._tokens, self._positions = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        self._counts, self._addresses = np.zeros(rows, np.int32), np.zeros(rows, np.uintp)
        self._wanted = np.zeros(rows, np.int8)
        self._sequences: list[Ids] = []  # kept until the batch is computed: llama.cpp reads them by address
        self.rows = self.outputs = 0

    def add(self, tokens: Ids, position: int, sequences: Ids, wants_logits: bool) -> None:
        assert 0 < len(sequences) <= MAX_SEQUENCES
        assert sequences.dtype == np.int32
        start, end = self.rows, self.rows + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens))
        self._counts[start:end] = len(sequences)
        self._addresses[start:end] = sequences.ctypes.data
        self._wanted[start:end] = 0
        self._wanted[end - 1] = wants_logits
        self._sequences.append(sequences)
        self.rows, self.outputs = end, self.outputs + wants_logits

    def clear(self) -> None:
        self._sequences.clear()
        self.rows = self.outputs = 0

    def struct(self) -> llama_cpp.llama_batch:
        """The batch as llama.cpp takes it; valid until the next `add` or `clear`."""
        return llama_cpp.llama_batch(
            n_tokens=self.rows,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._addresses.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
