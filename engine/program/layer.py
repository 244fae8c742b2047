"""What every layer is: a frozen record of settings, a flow that does its work, and a place in the registry.

Calling a layer on symbols puts it into a graph: the call makes a `Node` and returns the `Symbol` of its output.

To add a layer, subclass `Layer` as a frozen dataclass, give it a `kind`, and implement the four methods that raise
here. Importing the file that defines it is enough to make it known to task files.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from engine.errors import ContentError
from engine.flows import Flow
from engine.program.parameters import Parameter

LAYERS: dict[str, "type[Layer]"] = {}


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What a layer gave for one example: a text per output field, and for closed choices their numbers."""

    outputs: Mapping[str, str] = field(default_factory=dict)
    loglikelihoods: tuple[float, ...] | None = None
    probabilities: Mapping[str, float] | None = None
    error: str | None = None


class Layer(ABC):
    """One operation of a program. Instances are immutable and hold everything they need but their inputs."""

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            LAYERS[cls.kind] = cls

    def __call__(self, *symbols: "Symbol", name: str | None = None) -> "Symbol":
        """Add a node that applies this layer to `symbols`, called `name` or else after its main output."""
        return connect(self, symbols, name or self.outputs[-1])

    @property
    def summary(self) -> str:
        """The settings that matter most, in a few words: the layer's line where a program is drawn."""
        return ""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the fields this layer gives, the main one last."""

    @abstractmethod
    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """What an optimizer may change, by name. `inputs` are the names of the fields the node receives."""

    @abstractmethod
    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        """The same layer with some parameters at new values, which have been checked already."""

    @abstractmethod
    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Do the work for one example. A failure is a result with an `error`, never an exception."""

    @abstractmethod
    def to_mapping(self) -> dict[str, Any]:
        """Settings as plain data, without those at their defaults."""

    @classmethod
    @abstractmethod
    def from_mapping(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> Self:
        """Read settings back. `output` is the default name of the output field.

        Raises:
            ContentError: a setting is unknown or has a value it cannot have; `path` names it.
        """


@dataclass(frozen=True, slots=True)
class Node:
    """A layer in its place. `sources` maps the layer's input fields, in prompt order, to references."""

    name: str
    layer: Layer
    sources: Mapping[str, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the fields the layer receives."""
        return tuple(self.sources)

    def parameters(self) -> dict[str, Parameter]:
        """The layer's parameters, by their short names."""
        return self.layer.parameters(self.inputs)


@dataclass(frozen=True, slots=True)
class Symbol:
    """The promise of a text while a graph is being built: a program input, or a field of a node's output."""

    field: str
    node: Node | None = None
    parents: "tuple[Symbol, ...]" = ()

    @property
    def reference(self) -> str:
        """`field` for a program input, `node.field` otherwise."""
        return f"{self.node.name}.{self.field}" if self.node else self.field


def Input(name: str) -> Symbol:  # noqa: N802 (reads as a type, as in Keras)
    """A program input."""
    check_name(name, "input")
    return Symbol(name)


def connect(layer: Layer, symbols: tuple[Symbol, ...], name: str) -> Symbol:
    """Add a node that applies `layer` to `symbols`, and return its main output.

    Raises:
        ContentError: a bad name, two fields of one name, or a parameter with a value it cannot take.
    """
    check_name(name, "node")
    sources: dict[str, str] = {}
    for symbol in symbols:
        if symbol.field in sources:
            raise ContentError(f"node {name!r} reads two fields called {symbol.field!r}: rename one output")
        sources[symbol.field] = symbol.reference
    checked: dict[str, Any] = {}
    for short, parameter in layer.parameters(tuple(sources)).items():
        try:
            checked[short] = parameter.check(parameter.value)
        except ContentError as error:
            raise ContentError(f"node {name!r}: {short}: {error}") from None
    layer = layer.with_parameters(checked)
    return Symbol(layer.outputs[-1], Node(name, layer, sources), symbols)


def check_name(name: Any, what: str, path: tuple[str, ...] = ()) -> None:
    """See that a node, input or field has a name that can stand in a reference."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ContentError(f"{what} name {name!r}: use letters, digits and _, not starting with a digit", path)


def declared_outputs(spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Output fields as a node's mapping declares them: `outputs`, else one field with the node's own name."""
    given = spec.get("outputs")
    return tuple(map(str, given)) if isinstance(given, list | Mapping) and given else (name,)
