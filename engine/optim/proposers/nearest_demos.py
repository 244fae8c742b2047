"""nearest_demos: every example is shown the train rows that are nearest to it in meaning (Liu 2022, KATE).

A set of demonstrations is one weight for all examples; a pool of all labelled train rows with `nearest: k` chooses for
each its own. An example is never shown itself, so pools can be measured on train. Their prompts have little in common
and cost several times those of a set, so few are measured, coordinate by coordinate: the style, then how many are
shown, in which order and whether choices are listed, each under the best so far, and the best two on more rows.

Deviation: theirs compares settings on dev by the metric, here train tells how likely they make the accepted answers.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.demonstrations import described, shown, takes_labelled
from engine.optim.history import History, Proposal
from engine.optim.novelty import untried
from engine.optim.pricing import price
from engine.optim.screening import calls_each, ranked
from engine.program.graph import Program
from engine.program.layer import Node
from engine.program.layers import Predict
from engine.program.layers.predict import Style
from engine.program.parameters import Demo
from engine.program.places import Place
from engine.program.pool import MOST_BYTES, labelled
from engine.records import Example

_SHOWN = (8, 4, 16, 2)
_RACED = 2.0  # times the allowance: what a race of one may cost
_FIRST_ROWS = 24
_SECOND_ROWS = 48
_FEWEST_ROWS = 6
_PROPOSED = 2
_MOST_ROWS = 1000  # of a pool


class NearestDemosProposer:
    """Proposes the two best ways to show the nearest rows, at all places that give the answer from the inputs."""

    name = "nearest_demos"
    prior = 0.2

    def suits(self, program: Program) -> bool:
        """Whether there is such a place."""
        return bool(_takers(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Pools that no candidate has had yet, measured within the allowance; none where nothing finds what is near."""
        program = history.program
        pools = {place.name: pool for place in _takers(program) if (pool := _pool(place, history.train))}
        if not history.embeds or not pools:
            return []
        demos = {f"{name}.demos": pool for name, pool in pools.items()}
        prices = {many: price(program.replace(demos | _at(pools, nearest=many)), history.train) for many in _SHOWN}
        dev = len(history.candidates[0].traces)
        each = history.allowance_calls / calls_each(program, history.calibrates)
        many, *more = [many for many, dear in prices.items() if dear * dev <= each * _RACED] or [0]
        if not many:
            return []
        demos |= _at(pools, nearest=many)
        rows = int(each / prices[many])
        first = min(_FIRST_ROWS, max(_FEWEST_ROWS, rows // 10))
        found = yield from ranked(history, [demos | _at(pools, style=style) for style in get_args(Style)], first)
        closed = [place.name for place in _takers(program) if place.name in pools and "bias" in place.parameters()]
        others = [*(_at(pools, nearest=other) for other in more), _at(pools, order="hubs_first")]
        others += [_at(closed, list_choices=listed) for listed in ("yes", "no") if closed]
        found += yield from ranked(history, [{**found[0].edits, **other} for other in others], first)
        best = untried(history, [one.edits for one in sorted(found, key=lambda one: one.loss)])[:_PROPOSED]
        second = min(_SECOND_ROWS, (rows - len(found) * first) // max(1, len(best)))
        if second > first:
            best = [one.edits for one in (yield from ranked(history, best, second))]
        return [Proposal(edits, described(edits)) for edits in best]


def _takers(program: Program) -> list[Place]:
    return [place for place in shown(program) if isinstance(place.layer, Predict) and takes_labelled(place)]


def _pool(place: Place, train: Sequence[Example]) -> tuple[Demo, ...]:
    """As many of the rows as demos of a place as may be saved with a program."""
    node = Node(place.name, place.layer, place.node.sources)
    demos = [demo for example in train[:_MOST_ROWS] if (demo := labelled(node, example))]
    sizes = [sum(len(text.encode()) for text in (*demo.inputs.values(), *demo.outputs.values())) for demo in demos]
    fitting = [total <= MOST_BYTES for total in itertools.accumulate(sizes)]
    return tuple(demos[: sum(fitting)])


def _at(names: Iterable[str], **settings: Any) -> dict[str, Any]:
    """The same settings at several places, as edits."""
    return {f"{name}.{setting}": value for name in names for setting, value in settings.items()}
