"""Whether a model computes the same bits for a prompt whatever is computed beside it, tried out on the model itself.

On a CPU four things make a row's result depend on its companions (llama.cpp's source, version 0.3.36 of its binding):
attention over 64 and more query rows works in tiles of 64 cells from the first cell on; attention sums over cells in
their order; matrix kernels treat a single row, or the first few, differently; and without flash attention the sum runs
over a padded number of cells. The deterministic shape answers each: keys and values of different types, which the tiled
kernel refuses; cells given back only in order (`cells.py`); batches padded to a few rows; flash attention on.

The test asks for logits of prompts alone, together, after others and over streams, and compares every bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.local.choices import Tokens
from engine.inference.local.context import Ids, LlamaContext
from engine.inference.local.jobs import Job, Segment
from engine.inference.local.llama import LlamaModel
from engine.inference.local.profiles import Verdict
from engine.inference.local.scheduler import Scheduler
from engine.inference.local.shape import Shape
from engine.inference.local.writing import Writer, open_writer
from engine.records import Completion

PADDINGS = (2, 8)
_CELLS = 1024
_BATCH_ROWS = 192
_STEPS = 3
_TILED = ("f16", "f32")

_TEXTS = (
    "The harbour was quiet that morning, and the fishermen mended their nets while they waited for the fog to lift. ",
    "Nobody in the village could remember who had planted the old walnut tree beside the well, but all ate of it. ",
)
_ENDS = ("Then the bell rang", "A boy came running with a letter in his hand", "It was to be hot", "So they left")


def deterministic_shape(shape: Shape, padding: int) -> Shape:
    """The same shape with everything set so that companions should not matter; quantized types stay.

    Values as BF16 rather than keys: nearer to F16 (0.005 against 0.016 nats), and on a CPU with slow F16 sums, an Intel
    Xeon, 1.3 times as fast on long prompts.
    """
    if shape.key_type in _TILED:
        shape = replace(shape, key_type="f16", value_type="bf16")
    return replace(shape, flash_attention=True, padding=padding)


def examine(model: LlamaModel, shape: Shape) -> Verdict:
    """Try the paddings in turn; the verdict of the first that gives equal bits, else of the last.

    Computes about a thousand rows: two seconds for a model of 135 million weights on 2 cores.
    """
    small = replace(shape, cells=_CELLS, batch_rows=_BATCH_ROWS)
    verdict = Verdict(False, PADDINGS[0], math.inf)
    for padding in PADDINGS:
        try:
            difference = _largest_difference(model, deterministic_shape(small, padding))
        except ModelError:  # a device that does not take this mixture of types
            return verdict
        verdict = Verdict(difference == 0.0, padding, difference)
        if verdict.deterministic:
            break
    return verdict


def _largest_difference(model: LlamaModel, shape: Shape) -> float:
    stems = [model.tokenize(text, special=False) for text in _TEXTS]
    ends = [model.tokenize(end, special=False) for end in _ENDS]
    prompts = [np.array(stem + end, dtype=np.int32) for stem in stems for end in ends]
    context = LlamaContext(model, shape)
    try:
        alone = [_logits(context, [prompt])[0] for prompt in (prompts[1], prompts[6])]
        together = _logits(context, prompts)
        after = _logits(context, [np.array(stems[1] * 3, dtype=np.int32), *prompts[::-1]], fresh=False)[1:][::-1]
    finally:
        context.close()
    written = _written(model, shape, prompts)
    others = (*zip(together, after, strict=True), *zip(together, written, strict=True))
    pairs = [(alone[0], together[1]), (alone[1], together[6]), *others]
    return max(float(np.abs(first - second).max()) for first, second in pairs)


def _logits(context: LlamaContext, prompts: Sequence[Ids], fresh: bool = True) -> list[NDArray[np.float32]]:
    """Logits (steps, vocabulary) of every prompt and its greedy continuation, all through one scheduler."""
    if fresh:
        context.empty()
    scheduler = Scheduler(context, len(prompts), ordered=True)
    seen = _seen(scheduler, prompts)
    scheduler.clear()
    return seen


def _written(model: LlamaModel, shape: Shape, prompts: Sequence[Ids]) -> list[NDArray[np.float32]]:
    """The same over streams, fewer of them than prompts."""
    writer = open_writer(model, shape, parallel=3)
    try:
        return _seen(writer, prompts)
    finally:
        writer.close()


def _seen(runner: Scheduler | Writer, prompts: Sequence[Ids]) -> list[NDArray[np.float32]]:
    jobs = [_Probe(str(number), prompt) for number, prompt in enumerate(prompts)]
    runner.add(jobs)
    while runner.busy:
        runner.step()
    return [np.array(job.seen) for job in jobs]


@dataclass(eq=False)
class _Probe(Job):
    """A prompt and a few greedy tokens, with all logits on the way."""

    seen: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def sequences_needed(self) -> int:
        return 1

    @property
    def extra_cells(self) -> int:
        return _STEPS

    def begin(self, sequences: Ids, shared: int) -> None:
        self._lane = sequences
        self.segments.append(self._prompt(sequences, shared))

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        self.seen.append(logits.copy())
        if len(self.seen) == _STEPS:
            self.result = Completion(key=self.key)
            return
        token = np.array([int(logits.argmax())], dtype=np.int32)
        self.segments.append(Segment(token, len(self.tokens) + len(self.seen) - 1, self._lane, ()))
