"""What races are simulated on: the scores of many programs on the same rows of public task sets, from the real model.

A recording is one JSON file: `scores` (programs, rows) are 0 or 1, `losses` (programs, rows) the cross-entropies of the
accepted answers in nats. Programs differ in what optimization changes: instruction, style, demonstrations and bias.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.feedback.losses import cross_entropy
from engine.feedback.objective import Objective
from engine.flows import Flow, together
from engine.forward import forward
from engine.opening import open_runtime
from engine.optim.calibration import calibrated
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.program.parameters import Demo
from engine.records import Example, Trace
from engine.store.keys import seed_of
from engine.tasks.metrics import METRICS

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
PROGRAMS, ROWS = 24, 200

_CALIBRATION, _SIZES = 48, (0, 4, 8, 12)  # demonstrations a program
_METRIC = METRICS["exact_match"]
_INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    "trec": (
        "Classify the question by the kind of answer it asks for.",
        "Name the type of the answer.",
        "What does this question want to know? Choose the category that a correct answer belongs to.",
    ),
    "subj": (
        "Decide whether the sentence is subjective or objective.",
        "Does the sentence state an opinion or a fact? An opinion is subjective, a fact is objective.",
        "Sentences from reviews are subjective, those that tell the plot of a film are objective.",
    ),
    "agnews": (
        "Classify the topic of the news article.",
        "In which section of a newspaper does this article stand?",
        "Read the headline and the first sentence and name the topic.",
    ),
    "sst2": (
        "Classify the sentiment of the sentence from a movie review.",
        "Did the reviewer like the film?",
        "Is this sentence from a review positive or negative about the film?",
    ),
    "snips_intent": (
        "What does the user want the assistant to do?",
        "Classify the intent of the request.",
        "Name the command that this request to a voice assistant stands for.",
    ),
    "ii_sentiment": (
        "Say whether the sentence is positive or negative.",
        "Classify the sentiment.",
        "Does the writer of this sentence approve or disapprove?",
    ),
}
SETS = tuple(_INSTRUCTIONS)


@dataclass(frozen=True, slots=True)
class Recording:
    """Scores and losses of programs (programs, rows), in one order of the rows."""

    name: str
    scores: NDArray[np.float64]
    losses: NDArray[np.float64]


def recorded(names: Sequence[str], folder: Path, data: Path, model: str) -> list[Recording]:
    """Recordings by name, made where the folder has none; calls that were made before are in its store."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(_record(name, folder / "store.db", data, model)), encoding="utf-8")
        body = json.loads(path.read_text("utf-8"))
        found.append(Recording(name, np.array(body["scores"]), np.array(body["losses"])))
    return found


def _record(name: str, store: Path, data: Path, model: str) -> dict[str, list[object]]:
    lines = (data / name / "train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: 3 * ROWS]]
    examples = [Example(row["id"], {"text": row["input"]}, (row["target"],)) for row in rows]
    raced, others = examples[:ROWS], examples[ROWS:]
    labels = tuple(sorted({example.accepted[0] for example in examples}))
    rng = np.random.default_rng(seed_of("races", name))
    with open_runtime(model, store=store) as runtime:
        flows = [_variant(name, labels, number, others, rng) for number in range(PROGRAMS)]
        programs = runtime.run(together(flows))
        traces = [runtime.run(forward(program, raced, _METRIC)) for program in programs]
    return {
        "programs": [program.to_mapping() for program in programs],
        "scores": [[trace.score for trace in ran] for ran in traces],
        "losses": [[_loss(trace) for trace in ran] for ran in traces],
    }


def _variant(
    name: str, labels: tuple[str, ...], number: int, others: Sequence[Example], rng: Generator
) -> Flow[Program]:
    """One program of many; two of three have a bias fitted, as all that change a prompt have in a run."""
    shown = [others[int(index)] for index in rng.permutation(len(others) - _CALIBRATION)[: _SIZES[number % 4]]]
    layer = Predict(
        _INSTRUCTIONS[name][int(rng.integers(3))],
        output="answer",
        choices=labels,
        style="plain" if rng.random() < 0.7 else "chat",
        list_choices="yes" if rng.random() < 0.7 else "no",
        demos=tuple(Demo(dict(example.inputs), {"answer": example.accepted[0]}) for example in shown),
    )
    program = Program(layer(Input("text")))
    if number % 3 == 0:
        yield from ()
        return program
    return (yield from calibrated(program, others[-_CALIBRATION:], Objective(_METRIC))).program


def _loss(trace: Trace) -> float:
    loss = cross_entropy(trace)
    assert loss is not None  # the answers are choices
    return round(loss, 4)
