"""A trial: the optimizer's kinds of work on real prompts, for measuring how fast and how faithful a way to run is.

Three kinds. `scoring`: many short ends after one shared beginning, each with logits for its last row. `writing`: 16
sequences that write a token a step. `reading`: long prompts that share nothing. The prompts are those of the bundled
task. Takes a model at work, returns tokens per second and logits; knows nothing of layouts.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from engine.inference.local.choices import Tokens
from engine.inference.local.context import Ids
from engine.inference.local.jobs import Job, Segment
from engine.inference.local.llama import LlamaModel
from engine.inference.local.runner import Runner
from engine.program.parameters import Demo
from engine.program.prompt import Layout, render
from engine.records import Completion, Plain

_INSTRUCTION = "Decide which team of the shop should handle the customer's message."
_BEGINNING_TOKENS = 250
_END_TOKENS = range(12, 28)
_WRITERS = 16
_READING_TOKENS = 200
_MARK_EVERY = 6

# How much of an optimization is which kind of work, as shares of its tokens.
_WEIGHTS = {"scoring": 0.6, "writing": 0.2, "reading": 0.2}


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens per second in the three kinds of work."""

    scoring: float
    writing: float
    reading: float

    @property
    def together(self) -> float:
        """Tokens per second of the mixture: the weighted harmonic mean."""
        seconds: float = sum(weight / getattr(self, kind) for kind, weight in _WEIGHTS.items())
        return 1 / seconds

    @classmethod
    def median(cls, repetitions: Sequence["Speeds"]) -> "Speeds":
        """The median of each kind."""
        return cls(*(statistics.median(getattr(one, kind) for one in repetitions) for kind in _WEIGHTS))


@dataclass(frozen=True, slots=True)
class Quality:
    """How far one way to run is from another, over the same positions.

    `divergence` is the mean Kullback-Leibler divergence of the next-token distributions in nats, from the other to this
    one; `agreement` the share of positions at which both find the same token likeliest.
    """

    divergence: float
    agreement: float
    positions: int


@dataclass(frozen=True, slots=True)
class Work:
    """Prompts as tokens: `scoring` ones share their first `shared` tokens. Writers write `steps` tokens each."""

    shared: int
    scoring: tuple[Ids, ...]
    writing: tuple[Ids, ...]
    reading: tuple[Ids, ...]
    steps: int

    @classmethod
    def of(cls, model: LlamaModel) -> "Work":
        """The bundled task's prompts in this model's tokens."""
        rows = _demo_rows()
        prompts = _prompts(model, rows)
        shared = min(_common(prompts[0], prompt) for prompt in prompts[1:])
        short = [prompt for prompt in prompts if len(prompt) - shared in _END_TOKENS] or prompts
        return cls(shared, tuple(short[:24]), tuple(short[-_WRITERS:]), tuple(_passages(model, rows, 2)), 12)

    @property
    def longest(self) -> int:
        """Cells that the longest prompt and what is written after it need."""
        return max(map(len, (*self.scoring, *self.writing, *self.reading))) + self.steps

    def scaled(self, share: float) -> "Work":
        """About this share of the work, at least one long prompt and a few of the others."""
        return replace(
            self,
            scoring=self.scoring[: max(8, round(share * len(self.scoring)))],
            reading=self.reading[: max(1, round(share * len(self.reading)))],
            steps=max(4, round(share * self.steps)),
        )


Tick = Callable[[], None]
Paths = tuple[Tokens, ...]
Seen = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Observation:
    """Logits (vocabulary,) by position for every prompt, and what was written after each."""

    paths: Paths
    seen: tuple[Seen, ...]


def speeds(runner: Runner, work: Work, tick: Tick) -> Speeds:
    """Do the work once, and take the time. A first few rows are not timed. `tick` may raise to end it early."""
    _finish(runner, tick, [_Passage("first", work.reading[0][:_MARK_EVERY])])
    ends = sum(len(prompt) - work.shared for prompt in work.scoring)
    scoring_s = _finish(runner, tick, _passages_of("scoring", work.scoring))
    written, writing_s = _write(runner, tick, work)
    reading_s = _finish(runner, tick, _passages_of("reading", work.reading))
    return Speeds((work.shared + ends) / scoring_s, written / writing_s, sum(map(len, work.reading)) / reading_s)


def observe(runner: Runner, work: Work, tick: Tick, paths: Paths = ()) -> Observation:
    """Logits where answers are chosen and, every few tokens, within long texts. Writing follows `paths` if given."""
    prompts = (*work.scoring, *work.reading)
    jobs = []
    for number, prompt in enumerate(prompts):
        marks = () if number < len(work.scoring) else tuple(range(_MARK_EVERY, len(prompt), _MARK_EVERY))
        path = paths[number] if paths else ()
        jobs.append(_Passage(f"observe {number}", prompt, steps=2, marks=marks, path=path, keeps=True))
    _finish(runner, tick, jobs)
    return Observation(tuple(tuple(job.written) for job in jobs), tuple(job.seen for job in jobs))


def compare(original: Observation, other: Observation) -> Quality:
    """How far `other` is from `original`. Positions that only one of them has seen are left out."""
    divergences, agreements = [], []
    for first, second in zip(original.seen, other.seen, strict=True):
        for position in sorted(first.keys() & second.keys()):
            divergences.append(divergence(first[position], second[position]))
            agreements.append(first[position].argmax() == second[position].argmax())
    return Quality(float(np.mean(divergences)), float(np.mean(agreements)), len(divergences))


def divergence(original: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """KL(original || other) in nats of the distributions that two rows of logits (vocabulary,) stand for."""
    first, second = _log_softmax(original), _log_softmax(other)
    return max(0.0, float((np.exp(first) * (first - second)).sum()))


@dataclass(eq=False)
class _Passage(Job):
    """A prompt and `steps` greedy tokens, or those of `path`; `seen` keeps the logits at `marks` and from the end on.

    A position is the number of tokens before it.
    """

    steps: int = 1
    marks: tuple[int, ...] = ()
    path: Tokens = ()
    keeps: bool = False
    written: list[int] = field(default_factory=list)
    seen: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def sequences_needed(self) -> int:
        return 1

    @property
    def extra_cells(self) -> int:
        return self.steps

    def rows_at_once(self, shared: int) -> tuple[int, int]:
        rows, outputs = super().rows_at_once(shared)
        return rows, outputs + len(self.marks)

    def begin(self, sequences: Ids, shared: int) -> None:
        self._lane = sequences
        self.written.clear()
        start = shared
        for end in (*(mark for mark in self.marks if mark > shared), len(self.tokens)):
            self.segments.append(Segment(self.tokens[start:end], start, sequences, (end,)))
            start = end

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        position = slot[0]
        if self.keeps:
            self.seen[position] = logits.copy()
        if position < len(self.tokens):
            return
        self.written.append(self.path[len(self.written)] if self.path else int(logits.argmax()))
        if len(self.written) == self.steps:
            self.result = Completion(key=self.key)
            return
        token = np.array(self.written[-1:], dtype=np.int32)
        self.segments.append(Segment(token, position, self._lane, (position + 1,)))


class _Text(_Passage):
    """A passage of which most is written."""

    writes = True


def _passages_of(kind: str, prompts: Sequence[Ids]) -> list[_Passage]:
    return [_Passage(f"{kind} {number}", prompt) for number, prompt in enumerate(prompts)]


def _finish(runner: Runner, tick: Tick, jobs: Sequence[Job]) -> float:
    """Run jobs to their end; the seconds it took."""
    started = time.perf_counter()
    runner.add(jobs)
    while runner.busy:
        for _ in runner.step():
            pass
        tick()
    return time.perf_counter() - started


def _write(runner: Runner, tick: Tick, work: Work) -> tuple[int, float]:
    """Tokens that were written once every writer had begun, and the seconds they took."""
    jobs = [_Text(f"writing {number}", prompt, steps=work.steps) for number, prompt in enumerate(work.writing)]
    runner.add(jobs)
    while not all(job.written for job in jobs):
        for _ in runner.step():
            pass
        tick()
    before, started = sum(len(job.written) for job in jobs), time.perf_counter()
    while runner.busy:
        for _ in runner.step():
            pass
        tick()
    return sum(len(job.written) for job in jobs) - before, time.perf_counter() - started


def _demo_rows() -> list[dict[str, str]]:
    text = (resources.files("engine") / "demo" / "train.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _prompts(model: LlamaModel, rows: Sequence[Mapping[str, str]]) -> list[Ids]:
    """Prompts that begin with an instruction and as many demos as make the beginning long enough."""
    teams = tuple(sorted({row["team"] for row in rows}))
    demos: list[Demo] = []
    for row in rows:
        demos.append(Demo({"message": row["message"]}, {"team": row["team"]}))
        layout = Layout(_INSTRUCTION, ("team",), tuple(demos), teams, chat=False)
        if len(_tokens(model, layout, "")) >= _BEGINNING_TOKENS:
            break
    return [_tokens(model, layout, row["message"]) for row in rows[len(demos) :]]


def _tokens(model: LlamaModel, layout: Layout, message: str) -> Ids:
    prompt = render(layout, {"message": message})
    assert isinstance(prompt, Plain)
    return _with_bos(model, prompt.text)


def _with_bos(model: LlamaModel, text: str) -> Ids:
    return np.array([model.bos] * model.adds_bos + model.tokenize(text, special=False), dtype=np.int32)


def _passages(model: LlamaModel, rows: Sequence[Mapping[str, str]], count: int) -> list[Ids]:
    """Messages one after the other, as long texts that share nothing."""
    texts, size = [], len(rows) // count
    for number in range(count):
        text = " ".join(row["message"] for row in rows[number * size : (number + 1) * size])
        texts.append(_with_bos(model, text)[:_READING_TOKENS])
    return texts


def _common(first: Ids, second: Ids) -> int:
    """How many tokens two prompts begin with in common."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - math.log(np.exp(shifted).sum())
