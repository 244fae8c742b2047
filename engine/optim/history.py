"""What a proposer sees and what it gives: the run so far, and proposals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.random import Generator

from engine.flows import Flow
from engine.program.graph import Program
from engine.records import Example, Feedback, Trace
from engine.store.rows import CandidateRow
from engine.tasks.metrics import Metric


@dataclass(frozen=True, slots=True)
class History:
    """A run so far: only what has been committed, so that a resumed run sees the same.

    `incumbent` is the program to improve on and `dev_traces` its executions on dev. `allowance_calls` is how many
    calls a proposer should stay within. `calibrates` says that biases are fitted in this run.
    """

    round: int
    incumbent: Program
    dev_traces: Sequence[Trace]
    train: Sequence[Example]
    metric: Metric
    allowance_calls: int
    calibrates: bool
    candidates: Sequence[CandidateRow] = ()
    feedback: Sequence[Feedback] = ()
    failures: Sequence[Trace] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """An edit: new values for some parameters, and in a few words what it is."""

    edits: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


class Proposer(Protocol):
    """One strategy for improving the incumbent.

    Deterministic in `history` and `rng`. It may ask for completions; a useless answer means one proposal less, never
    an exception.
    """

    name: str
    wants_feedback: bool

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Proposals for the incumbent, best first; none is a good answer."""
