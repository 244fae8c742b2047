"""Rows of the store that are more than a record of the pipeline: runs and their candidates."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Status = Literal["running", "interrupted", "done"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One evaluation or optimization. `seconds` is what it has spent so far, all sessions together."""

    COLUMNS: ClassVar[str] = "id, kind, task, task_path, task_fingerprint, seed, settings, status, seconds, report"

    id: str
    kind: str
    task: str
    task_path: str
    task_fingerprint: str
    seed: int
    settings: Mapping[str, Any]
    status: Status = "running"
    seconds: float = 0.0
    report: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""

    def to_columns(self) -> tuple[Any, ...]:
        """Values in the order of COLUMNS."""
        plain = (self.id, self.kind, self.task, self.task_path, self.task_fingerprint, self.seed)
        return (*plain, json.dumps(dict(self.settings)), self.status, self.seconds, json.dumps(dict(self.report)))

    @classmethod
    def from_columns(cls, row: tuple[Any, ...]) -> "RunRow":
        """From the values of COLUMNS and `started`."""
        settings, report = json.loads(row[6]), json.loads(row[9] or "{}")
        return cls(
            id=row[0],
            kind=row[1],
            task=row[2],
            task_path=row[3],
            task_fingerprint=row[4],
            seed=row[5],
            settings=settings,
            status=row[7],
            seconds=row[8],
            report=report,
            started=row[10],
        )


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """How one proposal fared: its mean score on `examples` dev examples, and the test that decided.

    One that train dropped before the race has seen 0 examples. `p_value` and `level` are None for all but the winner
    of a race, which alone is tested.
    """

    number: int
    round: int
    proposer: str
    note: str
    parent: str
    program: str
    examples: int
    score: float
    p_value: float | None
    level: float | None
    accepted: bool

    def to_columns(self) -> tuple[Any, ...]:
        """Values in the order of the table, without the run."""
        names = (self.number, self.round, self.proposer, self.note, self.parent, self.program)
        return (*names, self.examples, self.score, self.p_value, self.level, int(self.accepted))

    @classmethod
    def from_columns(cls, row: tuple[Any, ...]) -> "CandidateRow":
        """From the values of the table, without the run."""
        number, round, proposer, note, parent, program, examples, score, p_value, level, accepted = row
        return cls(number, round, proposer, note, parent, program, examples, score, p_value, level, bool(accepted))
