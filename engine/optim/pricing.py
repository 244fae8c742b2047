"""Prices: how dear an execution of a program is, so that a round can afford what it begins.

Calls are not alike. What all rows of a program share of their prompts is computed once, and makes each of them slower
all the same; nearest demonstrations are those of one row alone, and several of them make its call many times as dear.
"""

from collections.abc import Sequence

from engine.program.cost import tokens
from engine.program.graph import Program
from engine.program.parameters import Demo, Demos
from engine.program.places import places
from engine.records import Example
from engine.statistics import mean
from engine.tasks.budget import Unit

_AROUND = 12  # tokens of a row beside its inputs: labels, turns, the answer
_AS_SLOW = 250  # tokens of context that take as long to attend to as a bare row takes: measured, 230 to 320 on 2 cores


def price(program: Program, examples: Sequence[Example]) -> float:
    """How many times as dear a row is as one whose prompt is shared but for its inputs; from 1 up, by estimate."""
    return 1.0 + _own(program) / _row(examples)


def rows_worth(program: Program, examples: Sequence[Example], unit: Unit) -> float:
    """How many rows of a program without demonstrations one of its rows is worth, in a budget's unit; by estimate."""
    own, shared = _own(program), _shared(program)
    if unit == "seconds":
        return 1.0 + own / _row(examples) + (own + shared) / _AS_SLOW
    return 1.0 + (own + shared) / _row(examples) if unit == "tokens" else 1.0


def _row(examples: Sequence[Example]) -> float:
    """Tokens of a row that it shares with no other."""
    return _AROUND + mean([float(sum(map(tokens, example.inputs.values()))) for example in examples[:100]])


def _own(program: Program) -> float:
    """Tokens of demonstrations that one row alone is shown."""
    return sum(min(one.nearest, len(one.value)) * mean(_sizes(one.value)) for one in _demos(program) if one.nearest)


def _shared(program: Program) -> float:
    """Tokens of demonstrations that all rows are shown."""
    return sum(sum(_sizes(one.value)) for one in _demos(program) if not one.nearest)


def _demos(program: Program) -> list[Demos]:
    found = [value for place in places(program) for value in place.parameters().values()]
    return [value for value in found if isinstance(value, Demos) and value.value]


def _sizes(demos: Sequence[Demo]) -> list[float]:
    """Tokens of the first hundred."""
    return [float(_AROUND + sum(map(tokens, (*demo.inputs.values(), *demo.outputs.values())))) for demo in demos[:100]]
