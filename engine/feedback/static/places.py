"""Places: every layer of a program where it stands, parts of layers included, and which of them write the answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.program.composite import Composite
from engine.program.graph import Program
from engine.program.layer import Layer, Node
from engine.program.layers import Parallel, Predict, Refine, Residual, Route, Sequential, TreeSearch, Vote


@dataclass(frozen=True, slots=True)
class Place:
    """A layer in its place: a node, or a part of one, named as its parameters are (`answer.of.steps.reason`).

    `sources` are the fields that it reads, each with the reference that it comes from, which is empty for what another
    part writes. `around` are the layers that it is a part of, the outermost first. What is `sampled` is drawn from
    several times, and what is not `vital` may fail without failing the example.
    """

    name: str
    layer: Layer
    sources: Mapping[str, str]
    around: tuple[Layer, ...] = ()
    sampled: bool = False
    vital: bool = True

    @property
    def parts(self) -> "list[Place]":
        """The places of its own parts, not of theirs."""
        found = []
        for name, part in self.layer.parts.items():
            read = tuple(self.sources)
            if isinstance(self.layer, Composite):
                read = self.layer.part_inputs(name, read)
            sources = {field: self.sources.get(field, "") for field in read}
            sampled = self.sampled or _is_sampled(self.layer, name)
            vital = self.vital and not _is_spared(self.layer, name)
            around = (*self.around, self.layer)
            found.append(Place(f"{self.name}.{name}", part, sources, around, sampled, vital))
        return found


def places(program: Program) -> list[Place]:
    """Every layer, each before its parts, in the order of the nodes."""
    return [place for node in program.nodes for place in _with_parts(node_place(node))]


def node_place(node: Node) -> Place:
    """A node as a place."""
    return Place(node.name, node.layer, node.sources)


def predicts(program: Program) -> list[tuple[Place, Predict]]:
    """The places that ask the model as a Predict does."""
    return [(place, place.layer) for place in places(program) if isinstance(place.layer, Predict)]


def answerers(program: Program) -> list[tuple[Place, str]]:
    """The innermost layers that may write the program's answer, each with the field that it writes it to."""
    return list(writers(node_place(program.output_node), program.output_field))


def writers(place: Place, field: str) -> Iterator[tuple[Place, str]]:
    """The innermost layers that may write a field of a layer, each with its own name for it."""
    parts = {part.name.removeprefix(f"{place.name}."): part for part in place.parts}
    match place.layer:
        case Sequential():
            writing = list(parts)[-1:]
        case Vote():
            writing = list(parts)
        case Route():
            writing = [name for name in parts if name != "gate"]
        case TreeSearch():
            writing = ["answer"]
        case Refine():
            writing = ["of"]
        case Parallel(branches):
            writing, field = [f"branches.{field}"], branches[field].outputs[-1]
        case _:
            writing = []
            yield place, field
    for name in writing:
        yield from writers(parts[name], field)


def _is_sampled(layer: Layer, part: str) -> bool:
    """Whether a part is drawn from several times, so that what it gives ought to differ."""
    return part == "of" if isinstance(layer, Vote) else part == "propose" and isinstance(layer, TreeSearch)


def _is_spared(layer: Layer, part: str) -> bool:
    """Whether a part may fail, or may not be asked at all, without failing its layer."""
    match layer:
        case Route():
            return part != "gate"
        case Vote():
            return layer.of is None
        case TreeSearch():
            return part == "propose"
        case Refine():
            return part == "check"
        case _:
            return isinstance(layer, Residual)


def _with_parts(place: Place) -> Iterator[Place]:
    yield place
    for part in place.parts:
        yield from _with_parts(part)
