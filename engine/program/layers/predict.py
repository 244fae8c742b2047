"""Predict: ask the model once. The linear layer: instruction and demos are its weights, a bias is its bias.

With `choices` the answer is the choice whose log-likelihood plus bias is highest (contextual calibration with a learned
bias; Zhao 2021, section 5, has a diagonal affine correction instead). With many choices `scores: winner` is several
times cheaper; there are no probabilities then, nor anything made of them: a fitted bias, a cross-entropy.

Without choices, the model writes open text up to `max_tokens` or a stop. Outputs that have a type other than text are
written under a grammar, so that they parse.

With `nearest: k` the demos are a pool, and each example is shown the k of them that are nearest to it in meaning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

from engine.errors import ContentError
from engine.flows import Flow, ask
from engine.program.cost import Cost, tokens
from engine.program.layer import Layer, LayerResult, Outside, check_name
from engine.program.parameters import Bias, Choice, Demo, Demos, Number, Parameter, Text
from engine.program.pool import EMBEDDER, MOST_SHOWN, Order, Shown, nearest_demos
from engine.program.prompt import Layout, continuation, default_stops, read_reply, render, reply_grammar
from engine.program.typed.fields import Field, as_fields, to_plain
from engine.records import Completion, Generate, Prompt, Score
from engine.tasks.taskfile import nearest

Style = Literal["chat", "plain"]
YesNo = Literal["yes", "no"]
Scores = Literal["all", "winner"]


@dataclass(frozen=True, slots=True)
class Predict(Layer):
    """One model call. `output` names its fields, the main one last; with `choices` there is exactly one.

    As a mapping it also says what each field holds, such as `{"reason": "text", "amount": "float"}`.

    Raises:
        ContentError: settings that contradict one another.
    """

    instruction: str
    output: str | Sequence[str | Field] | Mapping[str, Any] = ("answer",)
    choices: tuple[str, ...] = ()
    demos: tuple[Demo, ...] = ()
    style: Style = "chat"
    list_choices: YesNo = "yes"
    bias: tuple[float, ...] = ()
    temperature: float = 0.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    scores: Scores = "all"
    nearest: int = 0
    order: Order = "nearest_last"

    kind: ClassVar[str] = "predict"

    def __post_init__(self) -> None:
        for name in ("choices", "demos", "bias", "stop"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        try:
            object.__setattr__(self, "output", as_fields(self.output))
        except ContentError as error:
            raise ContentError(str(error), ("outputs", *error.path)) from None
        self._check_outputs()
        if self.scores not in get_args(Scores):
            raise ContentError(f"scores: expected all or winner, found {self.scores!r}", ("scores",))
        self._check_pool()
        for name in ("temperature", "max_tokens") if self.choices else ("list_choices", "bias", "scores"):
            if getattr(self, name) != _DEFAULTS[name]:
                raise _meaningless(name, self.choices)

    def _check_pool(self) -> None:
        try:
            shown = Number(0, 0, MOST_SHOWN, whole=True).check(self.nearest)
        except ContentError as error:
            raise ContentError(f"nearest: {error}", ("nearest",)) from None
        object.__setattr__(self, "nearest", shown)
        if self.order not in get_args(Order):
            raise ContentError(f"order: expected {' or '.join(get_args(Order))}, found {self.order!r}", ("order",))
        if self.order != _DEFAULTS["order"] and not self.nearest:
            raise _meaningless("order", self.choices)

    def _check_outputs(self) -> None:
        if not self.outputs:
            raise ContentError("at least one output is needed", ("outputs",))
        for name in self.outputs:
            check_name(name, "output", ("outputs",))
        if len(set(self.outputs)) != len(self.outputs):
            raise ContentError("an output is named twice", ("outputs",))
        if self.choices:
            _check_choices(self.choices)
            if len(self.outputs) != 1 or not self.fields[0].is_text:
                raise ContentError("closed choices need exactly one output, of text", ("outputs",))
        try:
            reply_grammar(self.fields, chat=False)
        except ContentError as error:
            raise ContentError(f"outputs: {error}", ("outputs",)) from None

    @property
    def fields(self) -> tuple[Field, ...]:
        """The output fields with their types, the main one last."""
        assert isinstance(self.output, tuple)  # __post_init__ made it one
        return self.output

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output fields, the main one last."""
        return tuple(field.name for field in self.fields)

    @property
    def summary(self) -> str:
        """Choices or output fields, style, demonstrations, and whether there is a bias."""
        given = f"{len(self.choices)} choices" if self.choices else ", ".join(map(_named, self.fields))
        demos = f"{len(self.demos):,} demo{'s' * (len(self.demos) > 1)}" if self.demos else ""
        demos = f"{min(self.nearest, len(self.demos))} nearest of {demos}" if self.nearest and demos else demos
        return " · ".join(filter(None, (given, self.style, demos, "bias" if any(self.bias) else "")))

    @property
    def outside(self) -> tuple[Outside, ...]:
        """The embedder that finds the nearest demonstrations."""
        return (Outside("embedder", EMBEDDER),) if self.nearest else ()

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """instruction, demos, style; with choices list_choices and bias; otherwise temperature and max_tokens.

        With one output, or where the demos are a pool already, nearest, too, by which a set of demos becomes a pool and
        a pool a set (0); of a pool also the order.
        """
        typed = tuple(item for item in self.fields if not item.is_text)
        common: dict[str, Parameter] = {
            "instruction": Text(self.instruction),
            "demos": Demos(self.demos, inputs, self.outputs, typed, self.nearest),
            "style": Choice(self.style, ("chat", "plain")),
        }
        if self.nearest or len(self.outputs) == 1:
            common["nearest"] = Number(self.nearest, 0, MOST_SHOWN, whole=True)
        if self.nearest:
            common["order"] = Choice(self.order, get_args(Order))
        if self.choices:
            listed = Choice(self.list_choices, ("yes", "no"))
            return {**common, "list_choices": listed, "bias": Bias(self.bias, self.choices)}
        temperature, cap = Number(self.temperature, 0, 2), Number(self.max_tokens, 1, 8192, whole=True)
        return {**common, "temperature": temperature, "max_tokens": cap}

    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        """The same layer with checked values put in; a set of demos has no order of a pool."""
        order = self.order if values.get("nearest", self.nearest) else _DEFAULTS["order"]
        return replace(self, **{"order": order, **values})

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Find the demonstrations where they are a pool; then score the choices, or write."""
        shown = yield from self._shown(inputs)
        if shown.error is not None:
            return LayerResult(error=shown.error)
        prompt = render(self._layout(shown.demos), inputs)
        result = yield from (self._choose(prompt) if self.choices else self._write(prompt, tuple(inputs)))
        return replace(result, passages=shown.passages)

    def likelihood(self, inputs: Mapping[str, str], answers: Sequence[str]) -> Flow[tuple[float, ...] | None]:
        """Log-likelihood of each of some answers of a layer with one output, in nats; None where none can be had.

        With choices it is the log of the probability that each has among them, the bias in it; an answer that is no
        choice has the logarithm of nothing, -inf. Otherwise it is that of the answer's text behind the prompt; that the
        model would end there is not part of it.
        """
        shown = yield from self._shown(inputs)
        if shown.error is not None or len(self.outputs) != 1:
            return None
        prompt = render(self._layout(shown.demos), inputs)
        if self.choices:
            found = yield from self._choose(prompt)
            known = found.probabilities or {}
            return tuple(_log(known.get(answer, 0.0)) for answer in answers) if known else None
        chat = self.style == "chat"
        texts = tuple(continuation(answer, chat) for answer in answers)
        completion = yield from ask(Score(prompt, texts, None if chat else "\n"))
        return completion.loglikelihoods

    def _shown(self, inputs: Mapping[str, str]) -> Flow[Shown]:
        if self.nearest and self.demos:
            return (yield from nearest_demos(self.demos, inputs, self.nearest, self.order))
        return Shown(self.demos)

    def _choose(self, prompt: Prompt) -> Flow[LayerResult]:
        chat = self.style == "chat"
        continuations = tuple(continuation(choice, chat) for choice in self.choices)
        end = None if chat else "\n"
        if self.scores == "winner":
            completion = yield from ask(Score(prompt, continuations, end, want="winner", bias=self.bias))
            if completion.winner is None:
                return LayerResult(error=completion.error)
            return LayerResult(outputs={self.outputs[0]: self.choices[completion.winner]})
        completion = yield from ask(Score(prompt, continuations, end))
        if completion.loglikelihoods is None:
            return LayerResult(error=completion.error)
        probabilities = softmax(biased(completion.loglikelihoods, self.bias))
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return LayerResult(
            outputs={self.outputs[0]: self.choices[best]},
            loglikelihoods=completion.loglikelihoods,
            probabilities=dict(zip(self.choices, probabilities, strict=True)),
        )

    def _write(self, prompt: Prompt, inputs: tuple[str, ...]) -> Flow[LayerResult]:
        chat = self.style == "chat"
        grammar = reply_grammar(self.fields, chat)
        ends_itself = grammar is not None and not self.fields[-1].is_text
        stop = self.stop or (() if ends_itself else default_stops(self.outputs, inputs, chat))
        completion = yield from ask(Generate(prompt, int(self.max_tokens), stop, self.temperature, grammar=grammar))
        return self._read(completion)

    def _read(self, completion: Completion) -> LayerResult:
        """The fields of a reply. A typed one that its cap cut off before it was surely over is an error."""
        if completion.text is None:
            return LayerResult(error=completion.error)
        at_cap = completion.finish == "length" and not all(field.is_text for field in self.fields)
        truncated = LayerResult(error=f"unparsed: the reply was truncated at {completion.generated_tokens} tokens")
        try:
            found = read_reply(completion.text, self.fields)
        except ContentError as error:
            return truncated if at_cap else LayerResult(error=f"unparsed: {error}")
        last = self.fields[-1]
        over = last.is_text or completion.text.endswith("\n") or not last.type.goes_on(found[last.name])
        return LayerResult(outputs=found) if over or not at_cap else truncated

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """One call, which reads the prompt and writes up to its cap, or scores every choice."""
        demos = [sum(map(tokens, (*demo.inputs.values(), *demo.outputs.values()))) for demo in self.demos]
        shown = sorted(demos, reverse=True)[: self.nearest or len(demos)]
        prompt = tokens(self.instruction) + sum(shown) + sum(inputs.values())
        if self.choices:
            return Cost(
                1, prompt + sum(map(tokens, self.choices)), 0, {self.outputs[0]: max(map(tokens, self.choices))}
            )
        return Cost(1, prompt, int(self.max_tokens), dict.fromkeys(self.outputs, int(self.max_tokens)))

    def _layout(self, demos: tuple[Demo, ...]) -> Layout:
        listed = self.choices if self.list_choices == "yes" else ()
        return Layout(self.instruction, self.outputs, demos, listed, self.style == "chat")

    def to_mapping(self) -> dict[str, Any]:
        """Settings as plain data; those at their defaults are left out."""
        mapping: dict[str, Any] = {"outputs": to_plain(self.fields), "instruction": self.instruction}
        if self.choices:
            mapping["choices"] = list(self.choices)
        for name in ("style", "list_choices", "scores", "temperature", "max_tokens", "nearest", "order"):
            if getattr(self, name) != _DEFAULTS[name]:
                mapping[name] = getattr(self, name)
        if self.stop:
            mapping["stop"] = list(self.stop)
        if self.bias:
            mapping["bias"] = dict(zip(self.choices, self.bias, strict=True))
        if self.demos:
            mapping["demos"] = [demo.to_mapping() for demo in self.demos]
        return mapping

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> Self:
        """Read settings back, every value checked."""
        known = ["outputs", *(item.name for item in fields(cls) if item.name != "output")]
        for key in mapping:
            if key not in known:
                raise ContentError(f"unknown key {key!r}: {nearest(str(key), known)}", (key,))
        if "instruction" not in mapping:
            raise ContentError("an instruction is missing")
        typed = mapping.get("outputs") if isinstance(mapping.get("outputs"), Mapping) else None
        if mapping.get("demos") == "train":
            raise ContentError("demos: train needs a task file with train rows, and a node to stand in", ("demos",))
        for name in ("choices", "stop") if typed else ("outputs", "choices", "stop"):
            _check_texts(mapping.get(name, ()), name)
        blank = cls(
            "-",
            typed or cls.declared_outputs(mapping, output),
            tuple(mapping.get("choices", ())),
            stop=tuple(mapping.get("stop", ())),
            scores=mapping.get("scores", "all"),
            nearest=mapping.get("nearest", 0),
        )
        parameters = blank.parameters(inputs)
        values: dict[str, Any] = {}
        for name in mapping.keys() - {"outputs", "choices", "stop", "scores", "nearest"}:
            if name not in parameters:
                raise _meaningless(name, blank.choices)
            try:
                values[name] = parameters[name].check(mapping[name])
            except ContentError as error:
                raise ContentError(f"{name}: {error}", (name, *error.path)) from None
        return blank.with_parameters(values)


def _named(field: Field) -> str:
    """A field's name, with the name of its type where that is not text."""
    plain = field.type.to_mapping()
    kind = plain if isinstance(plain, str) else next(iter(plain))
    return field.name if field.is_text else f"{field.name}: {kind}"


def biased(loglikelihoods: Sequence[float], bias: Sequence[float]) -> list[float]:
    """Log-likelihoods plus bias, in nats; an empty bias is zero."""
    return [value + term for value, term in zip(loglikelihoods, bias or [0.0] * len(loglikelihoods), strict=True)]


def softmax(values: Sequence[float]) -> list[float]:
    """Probabilities proportional to exp(values)."""
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _meaningless(name: str, choices: tuple[str, ...]) -> ContentError:
    met = "all demos shown: give nearest" if name == "order" else "closed choices" if choices else "open text"
    return ContentError(f"{name} has no meaning with {met}", (name,))


def _check_choices(choices: tuple[str, ...]) -> None:
    if len(choices) < 2:
        raise ContentError("choices need at least two different labels", ("choices",))
    for choice in choices:
        if not choice.strip():
            raise ContentError("a choice is blank", ("choices",))
        if choices.count(choice) > 1:
            raise ContentError(f"choice {choice!r} stands twice", ("choices",))


def _check_texts(value: Any, name: str) -> None:
    if name == "choices" and value == "auto":
        raise ContentError("choices: auto needs a task file with train rows", (name,))
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ContentError(f"{name}: expected a list of texts (quote yes, no, on, off and numbers)", (name,))


_DEFAULTS = {item.name: item.default for item in fields(Predict)}
