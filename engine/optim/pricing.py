"""Prices: how dear an execution of a program is, so that a round can afford what it begins.

Calls are not alike. What all rows of a program share of their prompts is computed once; nearest demonstrations are
those of one row alone, and several of them make its call many times as dear.
"""

from collections.abc import Sequence

from engine.program.cost import tokens
from engine.program.graph import Program
from engine.program.parameters import Demos
from engine.program.places import places
from engine.records import Example
from engine.statistics import mean

_AROUND = 12  # tokens of a row beside its inputs: labels, turns, the answer


def price(program: Program, examples: Sequence[Example]) -> float:
    """How many times as dear a row is as one whose prompt is shared but for its inputs; from 1 up, by estimate."""
    row = _AROUND + mean([float(sum(map(tokens, example.inputs.values()))) for example in examples[:100]])
    return 1.0 + sum(_of_its_own(value) for place in places(program) for value in place.parameters().values()) / row


def _of_its_own(parameter: object) -> float:
    """Tokens of demonstrations that one row alone is shown."""
    if not isinstance(parameter, Demos) or not parameter.nearest or not parameter.value:
        return 0.0
    sizes = [
        _AROUND + sum(map(tokens, (*demo.inputs.values(), *demo.outputs.values()))) for demo in parameter.value[:100]
    ]
    return min(parameter.nearest, len(parameter.value)) * mean([float(size) for size in sizes])
