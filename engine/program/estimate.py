"""What a whole program costs for one example before it is run: the costs of its nodes, each given what it will read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.program.cost import Cost, tokens
from engine.program.graph import Program
from engine.records import Example

ASSUMED_TOKENS = 100  # of a text whose length nothing tells


def estimate(program: Program, sizes: Mapping[str, int]) -> Cost:
    """At most what one example costs, given the tokens of each program input; `gives` names the answer's field.

    A text whose length is not known, an input or a field that its layer says nothing of, counts as `ASSUMED_TOKENS`.
    """
    known = {name: sizes.get(name, ASSUMED_TOKENS) for name in program.inputs}
    total = Cost()
    for node in program.nodes:
        cost = node.layer.cost({name: known[reference] for name, reference in node.sources.items()})
        known |= {f"{node.name}.{field}": cost.gives.get(field, ASSUMED_TOKENS) for field in node.layer.outputs}
        total += cost
    return replace(total, gives={program.output: known[program.output]})


def mean_sizes(examples: Sequence[Example]) -> dict[str, int]:
    """The tokens of each input, in the mean over examples and rounded up; nothing where there are no examples."""
    totals: dict[str, int] = {}
    for example in examples:
        for name, text in example.inputs.items():
            totals[name] = totals.get(name, 0) + tokens(text)
    return {name: -(-total // len(examples)) for name, total in totals.items()}
