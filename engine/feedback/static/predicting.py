"""What a Predict asks for, and what it may give."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.errors import ContentError
from engine.program.layers import Predict
from engine.program.parameters import Demo
from engine.program.pool import Order
from engine.program.typed.fields import BoolType, ChoicesType, Field
from engine.records import Generate, Score
from engine.tasks.answers import normalized

_ALL_SHOWN: Order = "nearest_last"  # which is all that a Predict takes where it has no pool


def request_of(layer: Predict, demos: Sequence[Demo], inputs: Mapping[str, str]) -> Generate | Score:
    """The very request that it makes for these inputs, shown these demonstrations. Nobody answers it."""
    flow = replace(layer, demos=tuple(demos), nearest=0, order=_ALL_SHOWN).flow(inputs)
    request = next(flow)
    flow.close()
    assert isinstance(request, Generate | Score)  # only a pool asks for anything before
    return request


def field_of(layer: Predict, name: str) -> Field:
    """An output field by its name."""
    return next(field for field in layer.fields if field.name == name)


def options(layer: Predict, field: Field) -> tuple[str, ...]:
    """The texts that a field is one of; none where it is open."""
    if layer.choices:
        return layer.choices
    if isinstance(field.type, ChoicesType):
        return field.type.options
    return ("true", "false") if isinstance(field.type, BoolType) else ()


def can_give(layer: Predict, field: Field, text: str) -> bool:
    """Whether a text, in whatever case, may be the value of a field."""
    if normalized(text) in map(normalized, options(layer, field)):
        return True
    try:
        field.canonical(text)
    except ContentError:
        return False
    return not layer.choices
