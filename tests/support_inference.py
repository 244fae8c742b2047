"""What several inference tests share: asking a backend directly, a stand-in for llama.cpp's cache, a precise model."""

import ctypes
import queue
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from engine.inference.backend import Backend
from engine.records import Completion, Request
from engine.store.keys import call_key, seed_of

_F16 = 1
_SILENCE = llama_cpp.llama_log_callback(lambda level, text, data: None)
PATIENCE_S = 120.0


def keyed(backend: Backend, requests: Sequence[Request]) -> list[str]:
    """The key of every request."""
    return [call_key(backend.identity, backend.prepare(request).content) for request in requests]


def answers(backend: Backend, requests: Sequence[Request]) -> list[Completion]:
    """Completions of requests handed over together, in their order. No store and no runtime in between."""
    keys = keyed(backend, requests)
    assert len(set(keys)) == len(keys), "a backend is never asked the same thing twice at once"
    replies: queue.SimpleQueue[tuple[str, Completion]] = queue.SimpleQueue()
    asked = [(key, backend.prepare(request)) for key, request in zip(keys, requests, strict=True)]
    backend.submit(asked, lambda key, completion: replies.put((key, completion)))
    arrived = dict(replies.get(timeout=PATIENCE_S) for _ in keys)
    return [arrived[key] for key in keys]


def precise_copy(source: Path, folder: Path) -> Path:
    """The same weights with 16-bit floats in place of 4-bit blocks, in which sums depend far less on their order.

    With Q4_1 every product rounds the activations to 8 bits, which blows up the last bits in which a batch differs
    from a single sequence to several tenths of a nat; in F16 the same code differs by about a hundredth.
    """
    target = folder / "precise.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.allow_requantize, settings.ftype, settings.nthread = True, _F16, 2
    llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p(0))
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    assert status == 0
    return target


def imagined_logits(history: tuple[int, ...], vocabulary: int) -> NDArray[np.float32]:
    """Logits that depend on every token of a history and on nothing else."""
    return np.random.default_rng(seed_of(*history)).normal(0, 2, vocabulary).astype(np.float32)


class ImaginedContext:
    """Stands in for `LlamaContext`: a unified cache in which every cell is accounted for.

    It refuses what llama.cpp would refuse or get wrong: a row whose sequences do not hold exactly the tokens before it,
    sequences of one row that differ, more rows than the batch or cells than the cache takes.
    """

    def __init__(self, cells: int, batch_rows: int, vocabulary: int) -> None:
        self.cells, self.batch_rows, self.vocabulary = cells, batch_rows, vocabulary
        self.affordable_rows = batch_rows
        self.rows = 0
        self.decoded_rows = 0
        self._batch: list[tuple[int, int, tuple[int, ...], bool]] = []
        self._sequences: dict[int, dict[int, int]] = {}  # cells by position
        self._token: dict[int, int] = {}
        self._saved: list[dict[int, int]] = []
        self._born = 0

    @property
    def used(self) -> int:
        """Cells that at least one sequence holds."""
        return len({cell for held in self._sequences.values() for cell in held.values()})

    @property
    def held(self) -> set[int]:
        """Sequences that hold at least one cell."""
        return {sequence for sequence, cells in self._sequences.items() if cells}

    @property
    def outputs(self) -> int:
        return sum(wants_logits for *_, wants_logits in self._batch)

    def add(self, tokens: NDArray[np.int32], position: int, sequences: NDArray[np.int32], wants_logits: bool) -> None:
        assert self.rows + len(tokens) <= self.batch_rows, "the batch is full"
        assert len(tokens)
        assert len(sequences)
        for offset, token in enumerate(tokens):
            wanted = wants_logits and offset == len(tokens) - 1
            self._batch.append((int(token), position + offset, tuple(map(int, sequences)), wanted))
        self.rows += len(tokens)

    def empty(self) -> None:
        self._sequences.clear()
        self._token.clear()

    def decode(self) -> NDArray[np.float32]:
        assert self.rows, "llama_decode refuses an empty batch"
        assert self.used + self.rows <= self.cells, "the cache is full"
        found = []
        for token, position, sequences, wants_logits in self._batch:
            histories = {self._history(sequence) for sequence in sequences}
            assert len(histories) == 1, "the sequences of one row differ"
            (history,) = histories
            assert len(history) == position, f"a row at position {position} of a sequence of {len(history)}"
            cell = self._new_cell(token)
            for sequence in sequences:
                self._sequences.setdefault(sequence, {})[position] = cell
            if wants_logits:
                found.append(imagined_logits((*history, token), self.vocabulary))
        self.decoded_rows += self.rows
        self._batch, self.rows = [], 0
        return np.array(found, dtype=np.float32).reshape(len(found), self.vocabulary)

    def share(self, source: int, target: int, end: int, start: int = 0) -> None:
        held = self._sequences.get(source, {})
        assert end < 0 or all(position in held for position in range(start, end)), "the source holds less than that"
        own = self._sequences.setdefault(target, {})
        if end < 0:  # only to keep cells taken: a sequence that holds several tokens of one position
            own.update({-1 - cell: cell for position, cell in held.items() if start <= position})
            return
        shared = {position: cell for position, cell in held.items() if start <= position < end}
        assert not own.keys() & shared.keys(), "the target holds such positions already"
        own.update(shared)

    def drop(self, sequence: int, start: int = 0, end: int = -1) -> None:
        held = self._sequences.pop(sequence, {})
        kept = {place: cell for place, cell in held.items() if place < start or 0 <= end <= place}
        if start or end >= 0:
            self._sequences[sequence] = kept

    def save(self, sequence: int) -> NDArray[np.uint8]:
        """A ticket for the tokens by position."""
        self._saved.append({place: self._token[cell] for place, cell in self._sequences.get(sequence, {}).items()})
        return np.array([len(self._saved) - 1]).view(np.uint8)

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> None:
        assert not self._sequences.get(sequence), "the sequence is not empty"
        saved = self._saved[int(state.view(np.int64)[0])]
        assert self.used + len(saved) <= self.cells, "the cache is full"
        self._sequences[sequence] = {place: self._new_cell(token) for place, token in sorted(saved.items())}

    def _history(self, sequence: int) -> tuple[int, ...]:
        held = self._sequences.get(sequence, {})
        assert sorted(held) == list(range(len(held))), "a sequence with a gap"
        return tuple(self._token[held[place]] for place in range(len(held)))

    def _new_cell(self, token: int) -> int:
        self._born += 1
        self._token[self._born] = token
        return self._born


class ImaginedStreams(ImaginedContext):
    """The same as a split cache: every sequence has `length` cells of its own and shares none.

    It refuses batches that llama.cpp would cut up: rows of several streams must be one each, of consecutive streams.
    """

    def __init__(self, streams: int, length: int, vocabulary: int, padding: int = 1) -> None:
        super().__init__(streams * length, length, vocabulary)
        self._streams, self._length, self._padding = streams, length, padding
        self.decoded_outputs, self.decode_seconds = 0, 0.0
        self.closed = False

    def decode(self) -> NDArray[np.float32]:
        assert not self.closed
        assert self.rows >= self._padding, "too few rows for one kernel"
        sequences = [row[2] for row in self._batch]
        assert all(len(one) == 1 and one[0] < self._streams for one in sequences)
        if len(set(sequences)) > 1:
            assert sequences == [(stream,) for stream in range(len(sequences))], "llama.cpp would cut this up"
        found = super().decode()
        assert all(len(held) <= self._length for held in self._sequences.values()), "a stream is full"
        return found

    def save(self, sequence: int) -> NDArray[np.uint8]:
        return np.concatenate([super().save(sequence), np.array([self._streams]).view(np.uint8)])

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> None:
        assert int(state[8:].view(np.int64)[0]) == self._streams, "llama.cpp refuses a state of another split"
        super().restore(sequence, state[:8])

    def share(self, source: int, target: int, end: int, start: int = 0) -> None:
        raise AssertionError("a part of a sequence cannot be shared in a split cache")

    def close(self) -> None:
        self.closed = True
