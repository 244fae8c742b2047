"""demos: a random search over sets of demonstrations, by how likely they make the accepted answers of other train rows.

DSPy's BootstrapFewShotWithRandomSearch (Khattab 2023), with another measure. Sets are drawn balanced over the answers,
labelled and bootstrapped demos together. The first half of them come in all sizes and under all prompt settings, which
interact with demonstrations, the second half in those of the best so far. They are compared on train rows that none of
them shows. What train likes best is proposed, measured on more rows by the loop, and raced on dev (successive halving;
Jamieson & Talwalkar 2016).

Deviation: theirs scores every set by the metric on all of dev. The cross-entropy on two dozen rows of train, calibrated
where biases are fitted, orders sets as well: over 40 sets for trec its correlation with the accuracy on dev was -0.89,
on three times the rows -0.88. Large sets are better there: those of 4, 8, 16, 24 and 48 had 48, 58, 66, 66 and 74%.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.demonstrations import dealt, described, drawn, from_both, needs_executions, shown
from engine.optim.history import History, Proposal
from engine.optim.screening import calls_each, losses
from engine.program.graph import Program
from engine.program.parameters import Choice

_SIZES = (16, 48, 32, 8)
_SETTINGS = ("style", "list_choices")
_ROWS = 24
_FEWEST_SETS, _MOST_SETS = 4, 64
_PROPOSED = 4


@dataclass(frozen=True, slots=True)
class _Way:
    """How a set is shown: how many examples, and under which settings, as edits."""

    size: int
    settings: Mapping[str, Any]


class DemosProposer:
    """Proposes the four sets that train likes best, each for all places that take demonstrations."""

    name = "demos"
    prior = 0.25

    def suits(self, program: Program) -> bool:
        """Whether a place takes demonstrations."""
        return bool(shown(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """As many sets are measured as the allowance covers."""
        program = history.program
        spare = history.allowance_calls // 4 if needs_executions(program) else 0
        solved = yield from from_both(history, spare)
        allowed = (history.allowance_calls - spare) // calls_each(program, history.calibrates)  # rows to measure
        rows = min(_ROWS, allowed // _FEWEST_SETS)
        if not solved or not rows:
            return []
        many = min(_MOST_SETS, allowed // rows)
        ways = list(itertools.islice(_ways(program, rng), many // 2))
        sets = [drawn(program, solved, way.size, rng) | dict(way.settings) for way in ways]
        found = yield from losses(history, sets, rows)
        best = sorted(range(len(ways)), key=lambda number: found[number])[: max(1, len(ways) // 4)]
        again = [ways[best[number % len(best)]] for number in range(many - len(ways))]
        sets += [drawn(program, solved, way.size, rng) | dict(way.settings) for way in again]
        found += yield from losses(history, sets[len(ways) :], rows)
        ranked = sorted(range(len(sets)), key=lambda number: found[number])
        return [Proposal(sets[number], described(sets[number])) for number in ranked[:_PROPOSED]]


def _ways(program: Program, rng: Generator) -> Iterator[_Way]:
    """Ways without end, in which all sizes and all settings come equally often."""
    choices = {
        f"{place.name}.{name}": value.options
        for place in shown(program)
        for name, value in place.parameters().items()
        if isinstance(value, Choice) and name in _SETTINGS
    }
    sizes = dealt(_SIZES, rng)
    decks = {name: dealt(options, rng) for name, options in choices.items()}
    while True:
        yield _Way(next(sizes), {name: next(deck) for name, deck in decks.items()})
