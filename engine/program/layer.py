"""What every layer is: a frozen record of settings, a flow that does its work, and a place in the registry.

Calling a layer on symbols puts it into a graph: the call makes a `Node` and returns the `Symbol` of its output.

To add a layer, subclass `Layer` as a frozen dataclass, give it a `kind`, say what its `outputs` are and write its
`flow`. The fields of the dataclass are its settings in task files. What an optimizer may change of them is said by
`parameters`; the other methods have a default that suits a layer which asks the model about its inputs. Importing the
file that defines a layer is enough to make it known.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from engine.errors import ContentError
from engine.flows import Flow, observed, together
from engine.program.cost import Cost
from engine.program.critique import Gradients, critique
from engine.program.parameters import Parameter, Text
from engine.program.prompt import label
from engine.program.settings import plain_settings, read_settings
from engine.records import Completion, Passage, Step
from engine.tasks.taskfile import nearest
from engine.tasks.usercode import USER_MODULE, blamed

LAYERS: dict[str, "type[Layer]"] = {}


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What a layer gave for one example: a text per output field, and whatever else should stand in the trace.

    The fields mean what they mean in `Step`.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    loglikelihoods: tuple[float, ...] | None = None
    probabilities: Mapping[str, float] | None = None
    passages: tuple[Passage, ...] = ()
    steps: tuple[Step, ...] = ()
    value: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """Something a layer needs that is not part of the program, by the name that the program gives it."""

    kind: Literal["index", "embedder", "tool", "database"]
    name: str


class Layer(ABC):
    """One operation of a program. Instances are immutable and hold everything they need but their inputs."""

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            known = LAYERS.get(cls.kind)
            if known is not None and (known.__module__, known.__name__) != (cls.__module__, cls.__name__):
                raise ContentError(
                    f"layer {cls.__name__}: its kind {cls.kind!r} is that of {known.__name__}: rename it"
                )
            LAYERS[cls.kind] = cls

    def __call__(self, *symbols: "Symbol", name: str | None = None) -> "Symbol":
        """Add a node that applies this layer to `symbols`, called `name` or else after its main output."""
        return connect(self, symbols, name or self.outputs[-1])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the fields this layer gives, the main one last; by default the one that `output` names."""
        return (str(self.output),)  # type: ignore[attr-defined]  # a field of whoever does not override this

    @abstractmethod
    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Do the work for one example. A failure is a result with an `error`, never an exception."""

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """What an optimizer may change, by name. `inputs` are the names of the fields the node receives."""
        return {}

    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        """The same layer with some parameters at new values, which have been checked already."""
        return replace(self, **values)  # type: ignore[type-var]  # every layer is a dataclass

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """The gradient of the layer's text parameters and of its `wanted` inputs, given what was `said` of its output.

        By default a critique of each is asked for, in one sentence.
        """
        texts = {name: value for name, value in self.parameters(tuple(step.inputs)).items() if isinstance(value, Text)}
        about = texts["instruction"].value if "instruction" in texts else ""
        asked = [*texts, *map(label, wanted)]
        answers = yield from together([critique(step, said, what, about) for what in asked])
        return Gradients.of(texts, answers[: len(texts)], wanted, answers[len(texts) :])

    def backward_by_field(
        self, step: Step, said: Mapping[str, Sequence[str]], wanted: tuple[str, ...]
    ) -> Flow[Gradients]:
        """`backward`, given what was said of each output field; by default all of it is said of the whole."""
        return self.backward(step, [text for name in self.outputs for text in said.get(name, ())], wanted)

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """At most what one example costs, given the tokens of each input; by default that is not known."""
        return Cost(bounded=False)

    @property
    def parts(self) -> Mapping[str, "Layer"]:
        """The layers that this one is made of, by name."""
        return {}

    @property
    def outside(self) -> tuple[Outside, ...]:
        """What the layer needs beside the program."""
        return ()

    @property
    def summary(self) -> str:
        """The settings that matter most, in a few words: the layer's line where a program is drawn."""
        return ""

    def to_mapping(self) -> dict[str, Any]:
        """Settings as plain data, without those at their defaults."""
        return plain_settings(self)

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """Output fields as a node's mapping declares them: `outputs`, else one field with the node's own name.

        A class whose `outputs` are a constant gives those.
        """
        given = spec.get("outputs", cls.outputs)
        return tuple(map(str, given)) if isinstance(given, list | tuple | Mapping) and given else (name,)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> Self:
        """Read settings back. `output` is the default name of the output field.

        Raises:
            ContentError: a setting is unknown or has a value it cannot have; `path` names it.
        """
        return read_settings(cls, mapping, output, inputs)


def perform(name: str, layer: Layer, inputs: Mapping[str, str]) -> Flow[Step]:
    """Have a layer do its work as the step `name`, and note what it did."""
    done: list[Completion] = []
    with blamed(f"layer {layer.kind!r} failed") if is_users(type(layer)) else nullcontext():
        result = yield from observed(layer.flow(inputs), done)
    missing = [field for field in layer.outputs if not isinstance(result.outputs.get(field), str)]
    if missing and result.error is None:
        result = LayerResult(error=f"layer {layer.kind!r} gave no text for {missing[0]!r}, which is one of its outputs")
    inner = {key for step in result.steps for key in calls_of(step)}
    return Step(
        name,
        dict(inputs),
        result.outputs,
        tuple(completion.key for completion in done if completion.key not in inner),
        result.loglikelihoods,
        result.probabilities,
        result.passages,
        result.steps,
        result.value,
        result.error,
        sum(completion.prompt_tokens + completion.generated_tokens for completion in done),
        sum(completion.seconds for completion in done),
    )


def is_users(kind: type[Layer]) -> bool:
    """Whether a layer is of the user's own, so that what it raises is told and not traced."""
    return kind.__module__.startswith(USER_MODULE)


def calls_of(step: Step) -> tuple[str, ...]:
    """The keys of all calls of a step, those of its own steps first."""
    return (*(key for inner in step.steps for key in calls_of(inner)), *step.calls)


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

    def __getitem__(self, name: str) -> "Symbol":
        """Another output field of the same node."""
        if self.node is None or name not in self.node.layer.outputs:
            raise ContentError(f"{self.reference!r} has no field {name!r}")
        return replace(self, field=name)


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


def read_layer(spec: Any, output: str, inputs: tuple[str, ...]) -> Layer:
    """A layer from its mapping: its kind under `layer`, and its settings.

    Raises:
        ContentError: there is no such layer, or a setting is wrong; `path` leads to it.
    """
    kind = layer_kind(spec)
    return LAYERS[kind].from_mapping({key: value for key, value in spec.items() if key != "layer"}, output, inputs)


def layer_kind(spec: Any) -> str:
    """The kind that a layer's mapping names.

    Raises:
        ContentError: it names none, or there is no such layer.
    """
    if not isinstance(spec, Mapping) or "layer" not in spec:
        raise ContentError(f"expected a mapping with a layer: {', '.join(sorted(LAYERS))}")
    if not isinstance(spec["layer"], str) or spec["layer"] not in LAYERS:
        raise ContentError(
            f"unknown layer {spec['layer']!r}: {nearest(str(spec['layer']), sorted(LAYERS))}", ("layer",)
        )
    return spec["layer"]
