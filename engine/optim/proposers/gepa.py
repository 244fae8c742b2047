"""gepa: reflective mutation of candidates from a Pareto pool, and merges of them (GEPA; Agrawal 2025).

A parent is drawn from the pool: those that are best on some dev example, likelier the more examples. One of its texts,
each in its turn, is rewritten from what the parent did on a few train rows: inputs, outputs, and what was wrong with
the answers, in words. The rewritten program is run on the same rows and proposed only if it does better there.
Candidates of the pool that have changed different weights are merged, which no model is asked for.

Deviations: 8 rows instead of 3, and three rewrites of which the best is taken, because a small model seldom writes a
good one; where the scores on the rows are equal, the loss tells what is better; several mutations a turn, each on rows
of its own; texts take turns from one round to the next.
"""

import math
from collections.abc import Sequence

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, together
from engine.optim.history import Candidate, History, Proposal
from engine.optim.merging import merges
from engine.optim.minibatch import failures
from engine.optim.pareto import Pool, pool
from engine.optim.words.telling import execution
from engine.optim.words.texts import fits, texts_of
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.graph import Program
from engine.program.layer import calls_of
from engine.records import Example, Trace

_MUTATIONS = 3
_REWRITES = 3
_ROWS = 8
_MERGES = 2
_SYSTEM = "You improve instructions for a language model. You answer with the new instruction only."


class GEPAProposer:
    """Proposes up to three rewrites that have passed their minibatch, and up to two merges."""

    name = "gepa"
    prior = 0.02

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Rewrites of parents drawn from the pool, the merges behind them."""
        found = pool(history.raced, history.objective)
        rows = _rows(history)
        names = list(texts_of(history.program))
        flows = []
        for number, own in enumerate(rng.spawn(len(rows))):
            parent = found.draw(own) or history.incumbent
            name = names[((history.round - 1) * _MUTATIONS + number) % len(names)]
            flows.append(_mutation(history, parent, name, rows[number], own))
        mutations = yield from together(flows)
        return [*(one for one in mutations if one), *_merges(history, found, rng)]


def _rows(history: History) -> list[Sequence[Example]]:
    """The rows of each mutation: as many of them as the allowance pays for, all different where train has enough."""
    traces = history.incumbent.traces
    calls = sum(len(calls_of(step)) for trace in traces for step in trace.steps)
    each = max(1, math.ceil(calls / max(1, len(traces))))
    size = min(_ROWS, len(history.drawn))
    price = size * each * (1 + _REWRITES) + _REWRITES
    count = min(_MUTATIONS, history.allowance_calls // price) if size else 0
    order = [*history.drawn] * (1 + _MUTATIONS * _ROWS // max(1, len(history.drawn)))
    return [order[number * size : (number + 1) * size] for number in range(count)]


def _mutation(
    history: History, parent: Candidate, name: str, rows: Sequence[Example], rng: Generator
) -> Flow[Proposal | None]:
    """The best of a few rewrites of one text, if it does better than the parent on the same rows."""
    objective = history.objective
    traces = yield from objective.run(parent.program, rows)
    parameter = texts_of(parent.program)[name]
    if not failures(traces):
        return None
    parts = _parts(parameter.value, name, traces)
    brief = Brief(_SYSTEM, parts, shown=_SHOWN, openings=openings_like(parameter.value))
    texts = [text for text in (yield from written(history, brief, _REWRITES, rng)) if fits(parameter, text)]
    runs = yield from together([objective.run(parent.program.replace({name: text}), rows) for text in texts])
    better = [
        (objective.rank(run), text)
        for text, run in zip(texts, runs, strict=True)
        if objective.rank(run) < objective.rank(traces)
    ]
    if not better:
        return None
    _, best = min(better)
    return Proposal({name: best}, f"{name} of {parent.number}, better on {len(rows)} rows: {best}", parent)


def _parts(text: str, name: str, traces: Sequence[Trace]) -> tuple[Part, ...]:
    """The request for a rewrite: the text, what was done with it and how that was, and what is wanted."""
    ordered = [*failures(list(traces)), *(trace for trace in traces if trace.score >= 1.0)]
    shown = [Part(f"{execution(trace, name)}\n", 1 / (place + 1)) for place, trace in enumerate(ordered)]
    return (Part(_BEGINNING), *shown, Part(_END.format(text)))


def _merges(history: History, found: Pool, rng: Generator) -> list[Proposal]:
    """A few of the merges there are, in a random order."""
    all_there_are = merges(history, found.candidates)
    return [all_there_are[int(index)] for index in rng.permutation(len(all_there_are))[:_MERGES]]


_BEGINNING = "This is what an assistant did:\n"
_END = "Its instruction was: {}\nWrite a better instruction, with which its answers would be right."
_SHOWN = tuple(
    (f"{_BEGINNING}\n{did}\n\n{_END.format(instruction)}", better)
    for did, instruction, better in (
        (
            'Number: seven\nAnswer: seven\nFeedback: The answer was "seven", but "7" is right.\n\n'
            "Number: forty\nAnswer: 40\nFeedback: The answer is right.",
            "Say the number.",
            "Write the number in digits, such as 7 for seven.",
        ),
        (
            'Review: I would buy it again.\nAnswer: happy\nFeedback: The answer was "happy", but "positive" is right.',
            "What is the review like?",
            "Tell whether the review is positive or negative. It is positive where its writer is content.",
        ),
    )
)
