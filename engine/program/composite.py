"""Composite: a layer made of others, its parts, which stand in its settings and whose parameters are its own.

A field that holds a layer is a part named after it (`of`); a field that holds layers by name has a part for each
(`experts.maths`). The parameters of a part are written behind its name: `of.instruction`, `experts.maths.style`. What a
composite has its parts do stands in the trace as steps named `of`, or `of 1`, `of 2` where it is done again.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Self

from engine.errors import ContentError
from engine.flows import Flow
from engine.program.critique import Gradients
from engine.program.layer import LAYERS, Layer, Outside, check_name, layer_kind, read_layer
from engine.program.parameters import Parameter
from engine.program.settings import plain_settings, read_settings
from engine.records import Step


class Composite(Layer):
    """Base of layers with parts."""

    @abstractmethod
    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """Which of the parts' steps are to blame, and what they pass on."""

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """The parameters that are no part's."""
        return {}

    def part_inputs(self, part: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the fields that a part receives; by default those of the whole."""
        return inputs

    def part_sizes(self, part: str, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """At most how many tokens each field has that a part receives; by default as many as for the whole."""
        return sizes

    @property
    def parts(self) -> Mapping[str, Layer]:
        found: dict[str, Layer] = {}
        for item in fields(self):  # type: ignore[arg-type]  # every layer is a dataclass
            value = getattr(self, item.name)
            if isinstance(value, Layer):
                found[item.name] = value
            elif isinstance(value, Mapping):
                found |= {f"{item.name}.{key}": part for key, part in value.items() if isinstance(part, Layer)}
        return found

    def with_parts(self, parts: Mapping[str, Layer]) -> Self:
        """The same layer with some of its parts replaced."""
        changed: dict[str, Any] = {}
        for name, part in parts.items():
            field, _, key = name.partition(".")
            changed[field] = {**changed.get(field, getattr(self, field)), key: part} if key else part
        return replace(self, **changed)  # type: ignore[type-var]

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        found = self.own_parameters(inputs)
        for name, part in self.parts.items():
            inner = part.parameters(self.part_inputs(name, inputs))
            found |= {f"{name}.{short}": parameter for short, parameter in inner.items()}
        return found

    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        own: dict[str, Any] = {}
        inner: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            part = next((part for part in self.parts if name.startswith(f"{part}.")), None)
            if part is None:
                own[name] = value
            else:
                inner.setdefault(part, {})[name[len(part) + 1 :]] = value
        parts = {name: self.parts[name].with_parameters(given) for name, given in inner.items()}
        return replace(self.with_parts(parts), **own)  # type: ignore[type-var]

    def part_backward(
        self, part: str, step: Step, said: Sequence[str] | Mapping[str, Sequence[str]], wanted: tuple[str, ...]
    ) -> Flow[Gradients]:
        """What a part's own rule says, with its parameters under the part's name; `said` may be told apart by field."""
        rule = self.parts[part]
        if isinstance(said, Mapping):
            inner = yield from rule.backward_by_field(step, said, wanted)
        else:
            inner = yield from rule.backward(step, said, wanted)
        found = Gradients()
        found.add(Gradients(inner.parameters), part)
        found.add(Gradients(inputs=inner.inputs))
        return found

    @property
    def outside(self) -> tuple[Outside, ...]:
        return tuple(dict.fromkeys(need for part in self.parts.values() for need in part.outside))

    def to_mapping(self) -> dict[str, Any]:
        mapping = plain_settings(self, {name.partition(".")[0] for name in self.parts})
        for name, part in self.parts.items():
            field, _, key = name.partition(".")
            written = {"layer": part.kind, **part.to_mapping()}
            if key:
                mapping.setdefault(field, {})[key] = written
            else:
                mapping[field] = written
        return mapping

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> Self:
        outputs = cls.declared_outputs(mapping, output)
        parts = cls.read_parts(mapping, outputs[-1], inputs)
        return read_settings(cls, mapping, output, inputs, parts)

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """The fields that hold parts, read from the settings; by default every part reads `inputs` and gives `output`.

        Raises:
            ContentError: a part is wrong; `path` leads to it.
        """
        parts: dict[str, Any] = {}
        for item in fields(cls):  # type: ignore[arg-type]
            spec = mapping.get(item.name)
            if not isinstance(spec, Mapping):
                continue
            if "layer" in spec:
                parts[item.name] = read_part(spec, output, inputs, (item.name,))
            elif spec and all(isinstance(value, Mapping) and "layer" in value for value in spec.values()):
                for key in spec:
                    check_name(key, "part", (item.name,))
                parts[item.name] = {
                    key: read_part(value, output, inputs, (item.name, key)) for key, value in spec.items()
                }
        return parts


def part_outputs(spec: Any, name: str) -> tuple[str, ...]:
    """Output fields as a part's mapping declares them; just `name` where it is no layer, as reading it will say."""
    try:
        return LAYERS[layer_kind(spec)].declared_outputs(spec, name)
    except ContentError:
        return (name,)


def read_part(spec: Any, output: str, inputs: tuple[str, ...], path: tuple[str, ...]) -> Layer:
    """One part from its mapping.

    Raises:
        ContentError: it is wrong; the message and `path` start with the part's place.
    """
    if isinstance(spec, Mapping) and "layer" in spec and "inputs" in spec:
        reads = f"it reads what it is given here: {', '.join(inputs)}"
        raise ContentError(f"{'.'.join(path)}: a part has no inputs of its own, {reads}", (*path, "inputs"))
    try:
        return read_layer(spec, output, inputs)
    except ContentError as error:
        raise ContentError(f"{'.'.join(path)}: {error}", (*path, *error.path)) from None
