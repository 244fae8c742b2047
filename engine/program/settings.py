"""A layer's settings as plain data and back, by the fields of its dataclass.

A field `output` is written as `outputs`, a list of one name. Everything else keeps its name and is left out where it is
at its default.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from engine.errors import ContentError
from engine.tasks.taskfile import nearest

T = TypeVar("T")


def plain_settings(layer: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a layer that are not at their defaults, `output` first, as plain data."""
    mapping: dict[str, Any] = {}
    for item in fields(layer):
        value = getattr(layer, item.name)
        if item.name == "output":
            mapping = {"outputs": [value], **mapping}
        elif item.name not in without and (value != item.default or item.default is MISSING):
            mapping[item.name] = _plain(value)
    return mapping


def read_settings(
    kind: type[T],
    mapping: Mapping[str, Any],
    output: str,
    inputs: tuple[str, ...],
    parts: Mapping[str, Any] | None = None,
) -> T:
    """A layer of a kind from its settings. `parts` are fields that have been read already.

    Raises:
        ContentError: a setting is unknown, missing or has a value it cannot have; `path` names it.
    """
    made = dict(parts or {})
    known = {item.name: item for item in fields(kind) if item.init}  # type: ignore[arg-type]  # a dataclass
    for key in mapping:
        if key not in known and not (key == "outputs" and "output" in known):
            names = ["outputs" if name == "output" else name for name in known]
            raise ContentError(f"unknown key {key!r}: {nearest(str(key), names)}", (key,))
    if "output" in known:
        made["output"] = _one_output(mapping.get("outputs", [output]))
    for name, item in known.items():
        if name in mapping and name not in made:
            made[name] = checked_setting(kind, name, mapping[name])
        elif name not in made and item.default is MISSING and item.default_factory is MISSING:
            raise ContentError(f"{name} is missing")
    if inspect.isabstract(kind):
        raise ContentError(f"{kind.__name__} lacks {', '.join(sorted(cast(Any, kind).__abstractmethods__))}: write it")
    layer: Any = kind(**made)
    values: dict[str, Any] = {}
    for name, parameter in layer.parameters(inputs).items():
        try:
            values[name] = parameter.check(parameter.value)
        except ContentError as error:
            raise ContentError(f"{name}: {error}", (*name.split("."), *error.path)) from None
    found: T = layer.with_parameters(values)
    return found


def checked_setting(kind: Callable[..., Any], name: str, value: Any) -> Any:
    """A value of the type that a field, or a parameter of a function, has; a list where a tuple is meant will do.

    Raises:
        ContentError: it is of another type.
    """
    try:
        return _adapter(kind, name).validate_python(_tuples(value))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        wanted = _WANTED.get(wrong["type"]) or wrong["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        wanted = wanted.replace("an instance of Layer", "a mapping with a layer")
        raise ContentError(f"{name}: expected {wanted}, found {value!r}", (name,)) from None


_WANTED = {  # what pydantic says in words of Python
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


@cache
def _adapter(kind: Callable[..., Any], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(kind)[name], config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _one_output(given: Any) -> str:
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 1 and isinstance(given[0], str):
        return given[0]
    raise ContentError(f"outputs: expected a list of one name, found {given!r}", ("outputs",))


def _plain(value: Any) -> Any:
    """Tuples as lists, at whatever depth."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _tuples(value: Any) -> Any:
    """Lists as tuples, at whatever depth."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, Mapping) else value
