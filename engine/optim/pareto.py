"""Pareto: candidates that no other beats, example by example, and in value, tokens and seconds at once.

The pool is what new candidates are made from (GEPA; Agrawal 2025, candidate selection): whoever is best on some
example knows something that the best on average may not. The front is what a run has to offer at its end: seconds are
the machine's, so nothing that a run does may depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.objective import Objective
from engine.optim.history import Candidate
from engine.records import Trace
from engine.statistics import mean


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates that are best on at least one example, in their order, and how many examples each wins."""

    candidates: tuple[Candidate, ...]
    wins: tuple[int, ...]

    def draw(self, rng: Generator) -> Candidate | None:
        """One of them, likelier the more examples it wins; None where there is none."""
        if not self.candidates:
            return None
        total = sum(self.wins)
        return self.candidates[int(rng.choice(len(self.wins), p=[count / total for count in self.wins]))]


def pool(candidates: Sequence[Candidate], objective: Objective) -> Pool:
    """The pool among candidates that have seen the same examples.

    A candidate is dominated, and left out, where another one wins every example that it wins and more.
    """
    values = [objective.values(candidate.traces) for candidate in candidates]
    best = [max(column) for column in zip(*values, strict=True)]
    won = [
        {place for place, (value, most) in enumerate(zip(own, best, strict=True)) if value == most} for own in values
    ]
    kept = [index for index, own in enumerate(won) if own and not any(own < other for other in won)]
    return Pool(tuple(candidates[index] for index in kept), tuple(len(won[index]) for index in kept))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a candidate is worth and what it costs: the mean value, tokens and seconds of an example."""

    value: float
    tokens: float
    seconds: float

    @classmethod
    def of(cls, traces: Sequence[Trace], objective: Objective) -> "Figures":
        """The figures of executions."""
        tokens, seconds = mean([trace.tokens for trace in traces]), mean([trace.seconds for trace in traces])
        return cls(objective.mean(traces), tokens, seconds)

    def beats(self, other: "Figures") -> bool:
        """Whether these are no worse in any respect, and better in one."""
        no_worse = self.value >= other.value and self.tokens <= other.tokens and self.seconds <= other.seconds
        return no_worse and self != other


def front(candidates: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """Those of the candidates that no other beats, in their order; without traces there is nothing to compare."""
    known = [candidate for candidate in candidates if candidate.traces]
    figures = [Figures.of(candidate.traces, objective) for candidate in known]
    return [
        candidate
        for candidate, own in zip(known, figures, strict=True)
        if not any(other.beats(own) for other in figures)
    ]
