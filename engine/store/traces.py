"""Traces as rows: the name of one, what is written of it, and how it is read back."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from engine.records import Example, Passage, Prediction, Step, Trace
from engine.store.keys import canonical, digest


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A stored trace: its name, when it was last written (UTC; empty where unknown), and the run it belongs to."""

    COLUMNS: ClassVar[str] = "id, created, run, program, example, origin, inputs, accepted, steps, prediction, score"

    id: str
    created: str
    run: str
    trace: Trace

    @classmethod
    def from_columns(cls, row: tuple[Any, ...]) -> "TraceRow":
        """From the values of COLUMNS."""
        name, created, run, program, example, origin, inputs, accepted, steps, prediction, score = row
        trace = Trace(
            program,
            example_of(example, inputs, accepted, origin),
            tuple(_step(step) for step in json.loads(steps)),
            Prediction(**json.loads(prediction)),
            math.nan if score is None else score,
        )
        return cls(name, created, run, trace)


def trace_id(run: str, program: str, example: str, inputs: str) -> str:
    """16 hexadecimal digits for one execution, and the same again where it is repeated; `inputs` is canonical JSON."""
    return digest(canonical([run, program, example, inputs]))


def trace_id_of(run: str, program: str, example: Example) -> str:
    """`trace_id` of a program's execution over an example."""
    return trace_id(run, program, example.id, canonical(dict(example.inputs)))


def example_of(id: str, inputs: str, accepted: str, origin: str) -> Example:
    """An example from the values of its columns."""
    return Example(id, json.loads(inputs), tuple(json.loads(accepted)), origin)


def evaluation_name(task: str, program: str) -> str:
    """The run of a task's evaluation of a program, which is named by its fingerprint."""
    return f"eval-{task}-{program}"


def answering_name(task: str) -> str:
    """The run of what a task's program, declared or saved, was asked outside of evaluations and optimizations."""
    return f"run-{task}"


OF_TASK = (  # as the two above name runs; ?5 is the task's name
    "(run IN (SELECT id FROM runs WHERE task = ?5) OR run = 'run-' || ?5 OR run = 'eval-' || ?5 || '-' || program)"
)

PUT_TRACE = (
    "INSERT OR REPLACE INTO traces "
    "(id, run, program, example, origin, inputs, accepted, steps, prediction, error, score) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def trace_columns(trace: Trace, run: str) -> tuple[Any, ...]:
    """Values in the order of PUT_TRACE. Mappings keep their order, by which choices and fields are known."""
    example = trace.example
    name = trace_id_of(run, trace.program, example)
    texts = map(_ordered, (dict(example.inputs), list(example.accepted), list(map(asdict, trace.steps))))
    known = (name, run, trace.program, example.id, example.origin)
    return (*known, *texts, _ordered(asdict(trace.prediction)), trace.prediction.error, trace.score)


def _ordered(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _step(stored: Mapping[str, Any]) -> Step:
    """A step from its mapping; one of an older store lacks some fields."""
    scores = stored.get("loglikelihoods")
    changed = {
        "calls": tuple(stored.get("calls", ())),
        "loglikelihoods": None if scores is None else tuple(scores),
        "passages": tuple(Passage(**passage) for passage in stored.get("passages", ())),
        "steps": tuple(_step(inner) for inner in stored.get("steps", ())),
    }
    return Step(**{**stored, **changed})
