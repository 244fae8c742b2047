"""Places as analysis sees them: those that ask as a Predict does, write the answer, are drawn from, or may fail."""

from collections.abc import Iterator

from engine.program.graph import Program
from engine.program.layer import Layer
from engine.program.layers import Parallel, Predict, Refine, Residual, Route, Sequential, TreeSearch, Vote
from engine.program.places import Place, place_of_node, places


def predicts(program: Program) -> list[tuple[Place, Predict]]:
    """The places that ask the model as a Predict does."""
    return [(place, place.layer) for place in places(program) if isinstance(place.layer, Predict)]


def is_sampled(place: Place) -> bool:
    """Whether a layer is drawn from several times, so that what it gives ought to differ."""
    return any(_is_sampled(layer, part) for layer, part in zip(place.around, place.path, strict=True))


def is_vital(place: Place) -> bool:
    """Whether the example fails where a layer does."""
    return not any(_is_spared(layer, part) for layer, part in zip(place.around, place.path, strict=True))


def answerers(program: Program) -> list[tuple[Place, str]]:
    """The innermost layers that may write the program's answer, each with the field that it writes it to."""
    return list(writers(place_of_node(program, program.output_node.name), program.output_field))


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
