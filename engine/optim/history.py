"""What a proposer sees and what it gives: the run so far, and proposals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.random import Generator

from engine.feedback.objective import Objective
from engine.flows import Flow
from engine.program.graph import Program
from engine.records import Example, Trace


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program this run has tried, and how it fared. Number 0 is the program as given, proposed by nobody.

    `traces` are its executions on dev, in dev's order, as far as it raced: none where train dropped it before. `edits`
    are those that made it out of `parent`, the number of another candidate. `accepted` ones became the incumbent, and
    `gain` is by how much their mean value on dev was above that of the incumbent then.
    """

    number: int
    program: Program
    traces: tuple[Trace, ...]
    round: int = 0
    proposer: str = ""
    note: str = ""
    parent: int = 0
    edits: Mapping[str, Any] = field(default_factory=dict)
    train_loss: float | None = None
    accepted: bool = False
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """A run so far: only what has been committed, so that a resumed run sees the same.

    `candidates` are all in their order, the one as given first; `incumbent` is the best so far, to improve on. `drawn`
    are the rows of train in an order of this round's own. `allowance_calls` is how many calls a proposer should stay
    within, `room_tokens` how long a prompt of the optimizer's model may be. `calibrates` says that biases are fitted in
    this run, `embeds` that nearest demonstrations can be found.
    """

    round: int
    incumbent: Candidate
    candidates: Sequence[Candidate]
    train: Sequence[Example]
    drawn: Sequence[Example]
    objective: Objective
    allowance_calls: int
    room_tokens: int
    calibrates: bool
    embeds: bool = False

    @property
    def program(self) -> Program:
        """The incumbent's program."""
        return self.incumbent.program

    @property
    def raced(self) -> list[Candidate]:
        """Candidates that have seen all of dev, in their order."""
        whole = len(self.candidates[0].traces)
        return [candidate for candidate in self.candidates if len(candidate.traces) == whole]

    @property
    def accepted(self) -> list[Candidate]:
        """Candidates that became the incumbent, in their order: the way the run has gone so far."""
        return [candidate for candidate in self.candidates if candidate.accepted]

    def value(self, candidate: Candidate) -> float:
        """A candidate's mean value on as much of dev as it has seen."""
        return self.objective.mean(candidate.traces)

    def by(self, proposer: str) -> list[Candidate]:
        """The candidates of one proposer, in their order."""
        return [candidate for candidate in self.candidates if candidate.proposer == proposer]

    def best(self, many: int) -> list[Candidate]:
        """The best of those that have seen all of dev, best first."""
        ranked = sorted(self.raced, key=lambda one: (self.objective.rank(one.traces), one.number))
        return ranked[:many]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An edit: new values for some parameters of `parent` (None: the incumbent), and in a few words what it is."""

    edits: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    parent: Candidate | None = None


class Proposer(Protocol):
    """One strategy for making a program better.

    Deterministic in `history` and `rng`. It may ask for completions; a useless answer means one proposal less, never
    an exception. `prior` is how much a play of it can be expected to gain on dev before anything has been seen of it;
    it decides who plays first where not all can play.
    """

    name: str
    prior: float

    def suits(self, program: Program) -> bool:
        """Whether the program has anything this strategy could edit."""

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Proposals, best first; none is a good answer."""
