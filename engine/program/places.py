"""Places: every layer of a program, parts of other layers too, with the name that its parameters stand behind.

A parameter is named by the way to it: `answer.instruction` is that of a node, `answer.of.instruction` that of a part of
one, `answer.steps.reason.instruction` that of a step in a part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.program.composite import Composite
from engine.program.graph import Program
from engine.program.layer import Layer, Node
from engine.program.parameters import Parameter
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Place:
    """A layer where it stands: that of a node, or down a `path` of parts within it.

    `name` is that of the node and the path, such as `answer.of`; `sources` are the fields that the layer receives, each
    with the reference that it comes from, which is empty for what another part writes; `around` are the layers that it
    is a part of, the outermost first. `answers` says that what it gives is a candidate for the program's answer: every
    layer on the way passes it on under its own name. `direct` says that it reads program inputs alone, each under the
    name that the node gives it.
    """

    name: str
    node: Node
    layer: Layer
    sources: Mapping[str, str]
    answers: bool
    direct: bool
    path: tuple[str, ...] = ()
    around: tuple[Layer, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields that the layer receives."""
        return tuple(self.sources)

    @property
    def parts(self) -> "list[Place]":
        """The places of its own parts, not of theirs."""
        layer = self.layer
        if not isinstance(layer, Composite):
            return []
        found = []
        for name, part in layer.parts.items():
            inputs = layer.part_inputs(name, self.inputs)
            sources = {field: self.sources.get(field, "") for field in inputs}
            answers = self.answers and part.outputs[-1] == layer.outputs[-1]
            direct = self.direct and inputs == self.inputs
            inner = Place(
                f"{self.name}.{name}", self.node, part, sources, answers, direct, (*self.path, name),
                (*self.around, layer),
            )  # fmt: skip
            found.append(inner)
        return found

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
    return [place for node in program.nodes for place in _with_parts(place_of_node(program, node.name))]


def place_of_node(program: Program, name: str) -> Place:
    """The place of a node's own layer."""
    node = program.node(name)
    answers = name == program.output_node.name and node.layer.outputs[-1] == program.output_field
    direct = all("." not in reference for reference in node.sources.values())
    return Place(name, node, node.layer, node.sources, answers, direct)


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


def _with_parts(place: Place) -> Iterator[Place]:
    yield place
    for part in place.parts:
        yield from _with_parts(part)
