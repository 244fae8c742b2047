"""A pool of demonstrations: a prompt shows those nearest in meaning to its example (Liu 2022, KATE, section 2).

Attention over the training set: the example's inputs are the query, those of the demos the keys, the best k are read.
An example is never shown itself, so programs can be fitted and judged on the very rows in their pool (leave-one-out).

Deviation: besides the nearest last, next to the question, there is an order in which the demos that most prompts show
come first, so that prompts begin alike and a beginning is computed once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ContentError
from engine.flows import Flow, ask
from engine.program.layer import Node
from engine.program.parameters import Demo
from engine.records import Example, Nearest, Passage

Order = Literal["nearest_last", "hubs_first"]

EMBEDDER = "minilm-l6-v2"  # what answers Nearest
MOST_SHOWN = 64
MOST_ROWS, MOST_BYTES = 10_000, 2_500_000  # of a pool: within what a program file may hold


@dataclass(frozen=True, slots=True)
class Shown:
    """The demos of one prompt in their order, and the passages that say which of the pool they are and how near."""

    demos: tuple[Demo, ...] = ()
    passages: tuple[Passage, ...] = ()
    error: str | None = None


def nearest_demos(pool: Sequence[Demo], inputs: Mapping[str, str], k: int, order: Order) -> Flow[Shown]:
    """The `k` demos of a pool nearest to the inputs, without those that have the very same inputs."""
    own = {str(place) for place, demo in enumerate(pool) if demo.inputs == inputs}
    texts = tuple(_embedded(demo.inputs) for demo in pool)
    asked = Nearest(_embedded(inputs), texts, k + len(own), "hubs_first" if order == "hubs_first" else "nearest_first")
    completion = yield from ask(asked)
    if completion.passages is None:
        return Shown(error=completion.error)
    others = [passage for passage in completion.passages if passage.id not in own]
    best = sorted(others, key=lambda passage: (-passage.score, int(passage.id)))[:k]
    kept = [passage for passage in others if passage in best] if order == "hubs_first" else best[::-1]
    return Shown(tuple(pool[int(passage.id)] for passage in kept), tuple(kept))


def labelled(node: Node, example: Example) -> Demo | None:
    """An example with its target as a demo of a node that reads program inputs; None where it cannot be one.

    It cannot without a target, or where an accepted answer is written as no value of the output's type.
    """
    if not example.target:
        return None
    inputs = {name: example.inputs[reference] for name, reference in node.sources.items()}
    demo = Demo(inputs, {node.layer.outputs[0]: example.target})
    try:
        node.parameters()["demos"].check([demo])
    except ContentError:
        return None
    return demo


def _embedded(inputs: Mapping[str, str]) -> str:
    return "\n".join(inputs.values())
