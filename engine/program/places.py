"""Places: every layer of a program, parts of other layers too, with the name that its parameters stand behind.

A parameter is named by the way to it: `answer.instruction` is that of a node, `answer.of.instruction` that of a part of
one, `answer.steps.reason.instruction` that of a step in a part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.program.composite import Composite
from engine.program.graph import Program
from engine.program.layer import Layer, Node
from engine.program.parameters import Parameter
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Place:
    """A layer where it stands: that of a node, or down a `path` of parts within it.

    `name` is that of the node and the path, such as `answer.of`; `inputs` are the fields that the layer receives.
    `answers` says that what it gives is a candidate for the program's answer: every layer on the way passes it on under
    its own name. `direct` says that it reads program inputs alone, each under the name that the node gives it.
    """

    name: str
    node: Node
    path: tuple[str, ...]
    layer: Layer
    inputs: tuple[str, ...]
    answers: bool
    direct: bool

    def parameters(self) -> dict[str, Parameter]:
        """Its own parameters by their short names, without those of its parts."""
        parts = tuple(f"{part}." for part in self.layer.parts)
        found = self.layer.parameters(self.inputs)
        return {name: value for name, value in found.items() if not name.startswith(parts)}

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """What the layer did in an execution, in its order: several steps where it was asked several times."""
        found = [step for step in steps if step.node == self.node.name]
        for part in self.path:
            found = [inner for step in found for inner in step.steps if inner.node.partition(" ")[0] == part]
        return found


def places(program: Program) -> list[Place]:
    """All places, in the order of the nodes, each layer before its parts."""
    found: list[Place] = []
    for node in program.nodes:
        answers = node.name == program.output_node.name and node.layer.outputs[-1] == program.output_field
        direct = all("." not in reference for reference in node.sources.values())
        found += _within(Place(node.name, node, (), node.layer, node.inputs, answers, direct))
    return found


def place_of(program: Program, parameter: str) -> Place:
    """The place that a parameter belongs to, by its name: the innermost on the way to it."""
    on_the_way = [place for place in places(program) if parameter.startswith(f"{place.name}.")]
    return on_the_way[-1]


def steps_of(steps: Sequence[Step], parameter: str) -> list[Step]:
    """What was done under a parameter, in order: a step for each time its node or part did its work.

    `parameter` is the way to it from `steps` on. A text that has steps of its own, such as the critique of a layer that
    refines, stands for those.
    """
    found: list[Step] = []
    for step in steps:
        place = step.node.partition(" ")[0]
        if parameter == place:
            found.append(step)
        elif parameter.startswith(f"{place}."):
            rest = parameter.removeprefix(f"{place}.")
            found += steps_of(step.steps, rest) or ([step] if "." not in rest else [])
    return found


def _within(place: Place) -> Iterator[Place]:
    yield place
    if not isinstance(place.layer, Composite):
        return
    for name, part in place.layer.parts.items():
        inputs = place.layer.part_inputs(name, place.inputs)
        answers = place.answers and part.outputs[-1] == place.layer.outputs[-1]
        inner = Place(
            f"{place.name}.{name}", place.node, (*place.path, name), part, inputs, answers,
            place.direct and inputs == place.inputs,
        )  # fmt: skip
        yield from _within(inner)
