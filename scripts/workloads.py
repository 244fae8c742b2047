#!/usr/bin/env python3
"""The workloads that speed is measured on: requests as optimization makes them, from rows of public task sets.

    scripts/workloads.py                             how many requests each workload asks, in how many stages
    scripts/workloads.py --data FOLDER --quick       the same for the small sizes

    W1 score      8 instructions with 8 demonstrations each, asked of 100 trec questions; 6 labels
    W2 generate   4 instructions, asked of 64 gsm8k questions; reasoning of up to 48 new tokens
    W3 unshared   100 agnews rows, each with 4 demonstrations of its own; 4 labels
    W4 labels     60 banking77 rows after 8 shared demonstrations; 77 labels, listed in the prompt
    W5 round      12 optimizer calls of 24 to 160 new tokens, then 6 candidates raced on 100 trec rows in blocks of 25

The task sets are not part of this project; each is a folder with train.jsonl and test.jsonl, rows {"input", "target"}.
Demonstrations come from train, what is asked from test, both in the order of the file. Everything is greedy. In W5 no
candidate drops out and nothing is decoded under a grammar, so that every contender has the same work.

This file knows nothing of models, tokens or clocks.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from engine.program.parameters import Demo
from engine.program.prompt import Layout, continuation, default_stops, label, render
from engine.records import Generate, ModelRequest, Plain, Score
from engine.store.keys import canonical, digest

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
SETS = ("trec", "gsm8k", "agnews", "banking77")

_NEW_TOKENS = 48
_RACE_BLOCK = 25
_MANY = 24  # with more labels than this only the winner is asked for
_SHORTEST_REPLY, _LONGEST_REPLY = 24, 160
_INSTRUCTIONS = (
    "Classify the question by the kind of answer it asks for.",
    "Read the question and decide what its answer would be: a person, a place, a number or something else.",
    "What does this question want to know? Name the category of the answer.",
    "Look at the question word and at the noun after it, then choose the type of the expected answer.",
    "Sort each question into one of the categories by what a correct answer would consist of.",
    "Name the answer type. Questions that ask how much or how many want a number.",
    "Decide which category fits the question best. Think of the shortest correct answer and of what it names.",
    "Label the question with its answer type. Definitions and explanations are descriptions.",
)
_SUMS = (
    "Solve the problem step by step and give the result at the end.",
    "Work out the answer to this arithmetic problem. Write every intermediate result on its way.",
    "Read the problem, write down the quantities it names, and calculate what it asks for.",
    "Answer the question with a short calculation.",
)


class Row(NamedTuple):
    """One row of a task set."""

    input: str
    target: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each workload to build; the shapes stay."""

    score_instructions: int = 8
    score_questions: int = 100
    sum_instructions: int = 4
    sum_questions: int = 64
    unshared_rows: int = 100
    many_label_rows: int = 60
    candidates: int = 6
    raced_rows: int = 100
    optimizer_calls: int = 12


FULL = Sizes()
QUICK = Sizes(
    score_instructions=4,
    score_questions=16,
    sum_instructions=2,
    sum_questions=8,
    unshared_rows=8,
    many_label_rows=6,
    raced_rows=8,
    optimizer_calls=2,
)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in stages; a stage is asked at once, when the one before it is answered."""

    name: str
    title: str
    stages: tuple[tuple[ModelRequest, ...], ...]

    @property
    def requests(self) -> tuple[ModelRequest, ...]:
        """All requests, stage after stage."""
        return tuple(request for stage in self.stages for request in stage)

    @property
    def fingerprint(self) -> str:
        """Changes with any prompt, label, cap or order."""
        return digest(canonical([[repr(request) for request in stage] for stage in self.stages]))


def missing_sets(data: Path) -> list[str]:
    """The files of task sets that `data` lacks."""
    wanted = [data / name / f"{split}.jsonl" for name in SETS for split in ("train", "test")]
    return [str(path.relative_to(data)) for path in wanted if not path.is_file()]


def build(name: str, data: Path, sizes: Sizes = FULL) -> Workload:
    """The workload `name`, a key of `BUILDERS`."""
    return BUILDERS[name](data, sizes)


def score(data: Path, sizes: Sizes) -> Workload:
    """Closed answers after long shared beginnings: every instruction with demonstrations of its own."""
    layouts = _candidates(data, sizes.score_instructions)
    questions = _read(data, "trec", "test", sizes.score_questions)
    labels = _labels(data, "trec")
    requests = [_scored(layout, "question", row, labels) for layout in layouts for row in questions]
    return Workload("W1", "score, shared beginnings", (tuple(requests),))


def generate(data: Path, sizes: Sizes) -> Workload:
    """Open answers, written until they stop or reach the cap. Asked for reasoning: bare answers are 4 tokens long."""
    questions = _read(data, "gsm8k", "test", sizes.sum_questions)
    outputs = ("reasoning", "answer")
    stop = default_stops(outputs, ("question",), chat=False)
    requests: list[ModelRequest] = []
    for instruction in _SUMS[: sizes.sum_instructions]:
        layout = Layout(instruction, outputs, chat=False)
        requests += [Generate(render(layout, {"question": row.input}), _NEW_TOKENS, stop) for row in questions]
    return Workload("W2", "generate", (tuple(requests),))


def unshared(data: Path, sizes: Sizes) -> Workload:
    """Closed answers after demonstrations that no other row has; only the instruction's few tokens are the same."""
    rows = _read(data, "agnews", "test", sizes.unshared_rows)
    solved = _read(data, "agnews", "train", 4 * len(rows))
    labels = _labels(data, "agnews")
    requests: list[ModelRequest] = []
    for number, row in enumerate(rows):
        demos = _demos("article", solved[4 * number : 4 * number + 4])
        layout = Layout("Classify the topic of the article.", ("answer",), demos, chat=False)
        requests.append(_scored(layout, "article", row, labels))
    return Workload("W3", "score, nothing shared", (tuple(requests),))


def many_labels(data: Path, sizes: Sizes) -> Workload:
    """Closed answers among so many labels that the labels outweigh the question."""
    labels = _labels(data, "banking77")
    demos = _demos("message", _read(data, "banking77", "train", 8))
    layout = Layout("Name the intent of the customer's message.", ("answer",), demos, labels, chat=False)
    rows = _read(data, "banking77", "test", sizes.many_label_rows)
    return Workload("W4", "score, many labels", (tuple(_scored(layout, "message", row, labels) for row in rows),))


def optimization_round(data: Path, sizes: Sizes) -> Workload:
    """A round of optimization: the optimizer's calls, then a race, block by block."""
    layouts = _candidates(data, sizes.candidates)
    rows = _read(data, "trec", "test", sizes.raced_rows)
    labels = _labels(data, "trec")
    mistakes = _read(data, "trec", "train", sizes.candidates * 8 + sizes.optimizer_calls)[sizes.candidates * 8 :]
    stages: list[tuple[ModelRequest, ...]] = [tuple(_advice(mistakes, labels))]
    for start in range(0, len(rows), _RACE_BLOCK):
        block = rows[start : start + _RACE_BLOCK]
        stages.append(tuple(_scored(layout, "question", row, labels) for layout in layouts for row in block))
    return Workload("W5", "a round of optimization", tuple(stages))


BUILDERS: dict[str, Callable[[Path, Sizes], Workload]] = {
    "W1": score,
    "W2": generate,
    "W3": unshared,
    "W4": many_labels,
    "W5": optimization_round,
}


def _candidates(data: Path, count: int) -> list[Layout]:
    """Different instructions, each with 8 demonstrations of its own, for trec."""
    solved = _read(data, "trec", "train", 8 * count)
    labels = _labels(data, "trec")
    layouts = []
    for number, instruction in enumerate(_INSTRUCTIONS[:count]):
        demos = _demos("question", solved[8 * number : 8 * number + 8])
        layouts.append(Layout(instruction, ("answer",), demos, labels, chat=False))
    return layouts


def _advice(mistakes: Sequence[Row], labels: Sequence[str]) -> list[ModelRequest]:
    """One request for advice a mistake, worded as the backward pass does; caps spread evenly, long and short mixed."""
    span, last = _LONGEST_REPLY - _SHORTEST_REPLY, max(1, len(mistakes) - 1)
    caps = [_SHORTEST_REPLY + span * number // last for number in range(len(mistakes))]
    mixed = [caps.pop(0 if number % 2 else -1) for number in range(len(mistakes))]
    requests: list[ModelRequest] = []
    for number, (row, cap) in enumerate(zip(mistakes, mixed, strict=True)):
        wrong = next(name for name in (*labels[number % len(labels) :], *labels) if name != row.target)
        lines = [
            "You give short, concrete advice on how to improve instructions.",
            f"Instruction: {_INSTRUCTIONS[0]}",
            f"{label('question')}: {row.input}",
            f'Mistake: The answer was "{wrong}", but "{row.target}" is right.',
            "Say how the instruction should change so that this mistake does not happen.",
            "Advice:",
        ]
        requests.append(Generate(Plain("\n".join(lines)), cap, role="optimizer"))
    return requests


def _scored(layout: Layout, field: str, row: Row, labels: Sequence[str]) -> Score:
    continuations = tuple(continuation(name, chat=False) for name in labels)
    want: Literal["all", "winner"] = "winner" if len(labels) > _MANY else "all"
    return Score(render(layout, {field: row.input}), continuations, end="\n", want=want)


def _demos(field: str, rows: Sequence[Row]) -> tuple[Demo, ...]:
    return tuple(Demo({field: row.input}, {"answer": row.target}) for row in rows)


def _labels(data: Path, name: str) -> tuple[str, ...]:
    return tuple(sorted({row.target for row in _read(data, name, "train")}))


def _read(data: Path, name: str, split: str, count: int | None = None) -> list[Row]:
    lines = (data / name / f"{split}.jsonl").read_text("utf-8").splitlines()[:count]
    if count is not None and len(lines) < count:
        sys.exit(f"{data / name / split}.jsonl has {len(lines)} rows, {count} are needed")
    parsed = [json.loads(line) for line in lines]
    return [Row(row["input"].strip(), row["target"]) for row in parsed]


def main() -> int:
    """Print the size of every workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if missing := missing_sets(options.data):
        sys.exit(f"workloads: {options.data} lacks {', '.join(missing)}; give the folder of the task sets with --data")
    for name in BUILDERS:
        workload = build(name, options.data, QUICK if options.quick else FULL)
        print(f"{name}  {workload.title}: {len(workload.requests)} requests in {len(workload.stages)} stages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
