"""Small subjects for static analysis: a program declared as in a task file, with a few rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import engine.program.layers  # noqa: F401 (makes the layers known)
from engine.feedback.static.analysis import findings
from engine.feedback.static.context import Limits
from engine.feedback.static.finding import Finding
from engine.feedback.static.measuring import measured
from engine.feedback.static.sizes import estimated
from engine.feedback.static.subject import Subject
from engine.program.graph import Program
from engine.records import Example
from engine.tasks.metrics import METRICS

COLOURS = ("red", "green", "blue")
LIMITS = Limits(context=1000, fewest_dev=6)


def predict(**settings: Any) -> dict[str, Any]:
    """A Predict that reads the question."""
    return {"layer": "predict", "inputs": ["question"], "instruction": "Answer it.", **settings}


def part(**settings: Any) -> dict[str, Any]:
    """A Predict as a part of another layer."""
    return {"layer": "predict", "instruction": "Answer it.", **settings}


def rows(targets: Sequence[str], name: str = "train", **inputs: str) -> tuple[Example, ...]:
    """Rows whose questions differ, with these targets."""
    return tuple(
        Example(
            f"{name}-{number}",
            {"question": f"What is {name} {number}?", **inputs},
            (target,) if target else (),
            f"{name}.jsonl:{number}",
        )
        for number, target in enumerate(targets, 1)
    )


def subject(
    nodes: Mapping[str, Any],
    train: Sequence[str] = COLOURS * 8,
    dev: Sequence[str] = COLOURS * 4,
    metric: str = "exact_match",
    **inputs: str,
) -> Subject:
    """A program with rows that have these targets; `inputs` are further ones of every row."""
    metric_used = METRICS[metric]
    return Subject(Program.from_mapping(nodes), rows(train, **inputs), rows(dev, "dev", **inputs), metric_used)


def found(given: Subject, limits: Limits = LIMITS) -> list[Finding]:
    """Everything that is found, with sizes by estimate."""
    return findings(given, limits, estimated(measured(given)))
