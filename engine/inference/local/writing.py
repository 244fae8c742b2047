"""Writing: a stream of cells of its own for every text that is being written, over a split cache.

In a unified cache every row looks at all used cells, those of other texts too; in a split one only at its own. With 32
texts of about 100 tokens SmolLM2-135M wrote 241 tokens/s so and 152 in a unified cache, and read prompts at 310 against
235 (2 cores of an Intel Xeon). A stream's cells are in the order of its tokens, always, and no row shares a kernel call
with fewer rows than the shape's padding: so a text computes the same bits whatever is written beside it.

llama.cpp computes rows of several streams in one go only where the streams are consecutive and have as many rows each.
Hence two kinds of steps: a prompt is read on its stream alone, and then every text gets one row. When a text is done,
the last stream's takes its place.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.inference.local.context import PAD_TOKEN, Ids, LlamaContext
from engine.inference.local.jobs import Job
from engine.inference.local.llama import LlamaModel
from engine.inference.local.prefix import WORTHWHILE, shared_length
from engine.inference.local.shape import MAX_STREAMS, SPLIT_CELLS, Shape
from engine.records import Completion

_FEWEST_STREAMS = 4
_COMFORTABLE_STREAMS = 16
_STREAM_STEP = 256  # llama.cpp rounds the cells of a stream up to a multiple of this

OpenStreams = Callable[[int, int], LlamaContext]


@dataclass(eq=False, slots=True)
class _Text:
    """A job that is being read or written, and after how many tokens of its prompt to keep what was computed."""

    job: Job
    keep_at: int


@dataclass(eq=False, slots=True)
class _Beginning:
    """The computed beginning of a prompt, outside the cache. Its tokens as big-endian bytes, by which they compare."""

    order: bytes
    state: NDArray[np.uint8]
    used: int

    @property
    def length(self) -> int:
        return len(self.order) // 4


class Writer:
    """Jobs of one sequence in, completions out, one `step` at a time. Not thread-safe.

    The context is opened when the first job comes, and anew where jobs need longer streams or could have many more.
    """

    def __init__(self, open_streams: OpenStreams, cells: int, padding: int, parallel: int) -> None:
        """`open_streams` takes how many streams and how many cells each has; `cells` bounds them all together."""
        self._open_streams, self._cells = open_streams, cells
        self._padding = max(1, padding)
        self._parallel = min(parallel, MAX_STREAMS)
        self._context: LlamaContext | None = None
        self._streams = self._length = 0
        self._waiting: list[Job] = []
        self._texts: list[_Text] = []  # by stream
        self._beginnings: list[_Beginning] = []
        self._started: dict[str, float] = {}
        self._past = (0, 0, 0.0)  # rows, outputs and seconds of contexts that were closed

    @property
    def busy(self) -> bool:
        """Whether a step would have something to do."""
        return bool(self._waiting or self._texts)

    @property
    def decoded_rows(self) -> int:
        """Rows given to llama_decode so far."""
        return self._past[0] + (self._context.decoded_rows if self._context else 0)

    @property
    def decoded_outputs(self) -> int:
        """Rows of logits that came back so far."""
        return self._past[1] + (self._context.decoded_outputs if self._context else 0)

    @property
    def decode_seconds(self) -> float:
        """Time spent inside llama_decode so far."""
        return self._past[2] + (self._context.decode_seconds if self._context else 0.0)

    def takes(self, job: Job) -> bool:
        """Whether the job is short enough for streams; others belong into a unified cache."""
        return job.sequences_needed == 1 and _length_of(job) <= self._cells // max(_FEWEST_STREAMS, self._padding)

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs that `takes` has said yes to."""
        now = time.perf_counter()
        for job in jobs:
            self._waiting.append(job)
            self._started[job.key] = now
        self._waiting.sort(key=lambda job: job.order)

    def drop(self, keys: Collection[str]) -> None:
        """Drop these jobs; the streams of those that have begun go to others. Beginnings stay."""
        gone = [stream for stream, text in enumerate(self._texts) if text.job.key in keys]
        waiting = [job for job in self._waiting if job.key in keys]
        for job in [*waiting, *(self._texts[stream].job for stream in gone)]:
            job.close()
            del self._started[job.key]
        self._waiting = [job for job in self._waiting if job.key not in keys]
        if self._context and gone:
            self._vacate(self._context, gone)

    def clear(self) -> None:
        """Drop all jobs. Beginnings stay."""
        for job in [*self._waiting, *(text.job for text in self._texts)]:
            job.close()
        self._waiting, self._texts = [], []
        self._started.clear()
        if self._context:
            self._context.empty()

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._past = (self.decoded_rows, self.decoded_outputs, self.decode_seconds)
            self._context.close()
            self._context = None

    def step(self) -> list[Completion]:
        """Read a part of one prompt, or write a token of every text. Returns what was completed."""
        context = self._ready_context()
        if self._read(context):
            return []
        self._begin(context)
        return [] if self._read(context) else self._write(context)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────

    def _ready_context(self) -> LlamaContext:
        """The context, opened anew between texts where that is of use to those that wait."""
        if not self._texts:
            streams, length = self._wanted()
            if not self._context or length > self._length or streams >= 2 * self._streams:
                self.close()
                self._context = self._open_streams(streams, length)
                self._streams, self._length = streams, length
                self._beginnings.clear()  # a state fits only into a cache split in the same way
        assert self._context is not None
        return self._context

    def _wanted(self) -> tuple[int, int]:
        """Streams and their length for what waits: for all that still leave a comfortable number, else the shortest."""
        lengths = sorted(map(_length_of, self._waiting))
        comfortable = [length for length in lengths if length <= self._cells // _COMFORTABLE_STREAMS] or lengths[:1]
        length = -(-comfortable[-1] // _STREAM_STEP) * _STREAM_STEP
        return max(self._padding, min(self._parallel, self._cells // length)), length

    def _begin(self, context: LlamaContext) -> None:
        """Give a free stream to the next job that is short enough for it."""
        if len(self._texts) == min(self._streams, self._parallel):
            return
        place = next((n for n, job in enumerate(self._waiting) if _length_of(job) <= self._length), None)
        if place is None:
            return
        job, stream = self._waiting.pop(place), len(self._texts)
        known = self._recall(context, job, stream)
        common = shared_length(job.order, self._waiting[place].order) if place < len(self._waiting) else 0
        common = min(common, len(job.tokens) - 1)
        self._texts.append(_Text(job, common if common - known >= WORTHWHILE else 0))
        job.start([stream], known)

    def _collect(self, context: LlamaContext) -> list[Completion]:
        """Completions of the texts that are done."""
        done = [stream for stream, text in enumerate(self._texts) if text.job.result is not None]
        completions = [self._completion(self._texts[stream].job) for stream in done]
        self._vacate(context, done)
        return completions

    def _vacate(self, context: LlamaContext, streams: Sequence[int]) -> None:
        """Empty some streams and move the last texts into the gaps. One that is still being read stays the last."""
        for stream in streams:
            context.drop(stream)
        kept = [stream for stream in range(len(self._texts)) if stream not in streams]
        read_last = kept[-1:] if kept and self._being_read(kept[-1]) else []
        others = kept[: len(kept) - len(read_last)]
        late = [stream for stream in others if stream >= len(others)]
        order = [*(place if place in others else late.pop() for place in range(len(others))), *read_last]
        for place, stream in enumerate(order):
            if place != stream:
                context.restore(place, context.save(stream))
                context.drop(stream)
        self._texts = [self._texts[stream] for stream in order]

    def _being_read(self, stream: int) -> bool:
        """Whether more than a row or two of a text's prompt is left."""
        segments = self._texts[stream].job.segments
        return bool(segments) and len(segments[0].tokens) > self._padding

    def _completion(self, job: Job) -> Completion:
        job.close()
        assert job.result is not None  # _collect chose only such jobs
        seconds = time.perf_counter() - self._started.pop(job.key)
        return replace(job.result, computed_tokens=job.computed, seconds=seconds)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    def _read(self, context: LlamaContext) -> bool:
        """Compute a part of the prompt begun last, all but its last token; False where it has been read."""
        if not self._texts:
            return False
        stream, text = len(self._texts) - 1, self._texts[-1]
        segment = text.job.segments[0]
        rows = min(context.affordable_rows, len(segment.tokens) - 1)
        if text.keep_at > segment.position:
            rows = min(rows, text.keep_at - segment.position)
        if rows < self._padding:  # a kernel for so few may round differently; they are written row by row
            return False
        part = segment.first(rows)
        context.add(part.tokens, part.position, _stream(stream), wants_logits=False)
        context.decode()
        text.job.computed += rows
        rest = segment.after(part)
        assert rest is not None  # the last token is never read
        text.job.segments[0] = rest
        if rest.position == text.keep_at:
            self._keep(context, text, stream)
        return True

    def _write(self, context: LlamaContext) -> list[Completion]:
        """One row of every text, on consecutive streams; what came of them."""
        ended = []
        for stream, text in enumerate(self._texts):
            segment = text.job.segments[0]
            part = segment.first(1)
            context.add(part.tokens, part.position, _stream(stream), wants_logits=True)
            text.job.computed += 1
            rest = segment.after(part)
            ended.append(part.slot if rest is None else None)
            text.job.segments.popleft()
            if rest:
                text.job.segments.appendleft(rest)
        padded = range(len(self._texts), self._padding)
        for stream in padded:
            context.add(PAD_TOKEN, 0, _stream(stream), wants_logits=True)
        logits = context.decode()
        for stream in padded:
            context.drop(stream)
        for row, (text, slot) in enumerate(zip(self._texts, ended, strict=True)):
            if slot is not None:
                text.job.take(slot, logits[row])
        return self._collect(context)

    # ── beginnings ───────────────────────────────────────────────────────────────────────────────

    def _recall(self, context: LlamaContext, job: Job, stream: int) -> int:
        """Put the longest known beginning of a prompt into its stream; how many tokens that are."""
        known = [(shared_length(beginning.order, job.order), beginning) for beginning in self._beginnings]
        length, beginning = max(known, key=lambda pair: pair[0], default=(0, None))
        length = min(length, len(job.tokens) - 1)
        if beginning is None or length < WORTHWHILE:
            return 0
        context.restore(stream, beginning.state)
        if length < beginning.length:
            context.drop(stream, start=length)
        beginning.used = self.decoded_rows
        return length

    def _keep(self, context: LlamaContext, text: _Text, stream: int) -> None:
        """Keep what a stream holds, for prompts that begin so; those unused longest make room."""
        self._beginnings.append(_Beginning(text.job.order[: 4 * text.keep_at], context.save(stream), self.decoded_rows))
        self._beginnings.sort(key=lambda beginning: beginning.used)
        while sum(beginning.length for beginning in self._beginnings) > self._cells // 4:
            del self._beginnings[0]


def open_writer(model: LlamaModel, shape: Shape, parallel: int) -> Writer:
    """A writer for a model, at most `parallel` texts at a time, over split contexts of a shape."""

    def open_streams(streams: int, length: int) -> LlamaContext:
        rows = min(shape.batch_rows, length)
        return LlamaContext(model, replace(shape, cells=streams * length, batch_rows=max(rows, streams)), streams)

    return Writer(open_streams, min(shape.cells, SPLIT_CELLS), shape.padding, parallel)


def _length_of(job: Job) -> int:
    return len(job.tokens) + job.extra_cells


def _stream(number: int) -> Ids:
    return np.array([number], dtype=np.int32)
