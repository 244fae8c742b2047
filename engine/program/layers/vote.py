"""Vote: the answer that most samples of a layer, or most of several layers, agree on. Ensemble pooling.

Sampling one layer several times is self-consistency (Wang 2023, "Self-Consistency Improves Chain of Thought"), several
layers are an ensemble. Answers are alike by `answer_key`; closed choices as they stand.

By `likelihood` every sample's vote weighs as much as the model finds its answer likely. Closed choices are pooled by
the mean of their probabilities (linear pooling). Of open text the distinct answers are scored in one request, asked as
a Predict would ask for the answer alone, and weigh as their softmax does; unlike the weights in Wang's table 1, these
are not normalized by length and know no reasoning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from engine.errors import ContentError
from engine.flows import Flow, ask, together, varied
from engine.program.composite import Composite, part_outputs
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, perform
from engine.program.layers.predict import Predict, softmax
from engine.program.parameters import Choice, Demo, Number, Parameter
from engine.program.prompt import Layout, continuation, label, render
from engine.records import Chat, Plain, Prompt, Score, Step
from engine.tasks.answers import answer_key

Weights = Literal["count", "likelihood"]
Ballot = Mapping[str, float]

_SAMPLES = 5
_BLAMED = 2
_COLDEST = 0.01


@dataclass(frozen=True, slots=True)
class Vote(Composite):
    """`n` samples of one layer, `of`, or one answer of each of several, `branches`.

    Gives the main output of its parts and those others that all of them have, from the first sample with the answer
    that won. A sample that failed or wrote nothing does not vote; ties go to the answer that came first. The whole is
    judged by the share of the votes that the answer got, and every sample by the share of its own.

    Raises:
        ContentError: not exactly one of `of` and `branches`, a layer whose samples would all be alike, or branches
            whose main outputs differ.
    """

    of: Layer | None = None
    branches: Mapping[str, Layer] | None = None
    n: int = _SAMPLES
    weights: Weights = "count"

    kind: ClassVar[str] = "vote"

    def __post_init__(self) -> None:
        if (self.of is None) == (not self.branches):
            raise ContentError("expected one of the two: of, a layer to sample, or branches, several layers by name")
        if self.of is not None:
            _check_sampled(self.of)
        elif self.n != _SAMPLES:
            raise ContentError("n has no meaning with branches, each of which answers once", ("n",))
        mains = dict.fromkeys(part.outputs[-1] for part in self.parts.values())
        if len(mains) > 1:
            raise ContentError(f"branches give different outputs, {', '.join(mains)}: name them alike", ("branches",))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields that all parts give, the main one last."""
        return _common([part.outputs for part in self.parts.values()])

    @property
    def summary(self) -> str:
        return f"{f'{self.n} samples' if self.of else f'{len(self.parts)} branches'}, by {self.weights}"

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """weights, and n where one layer is sampled."""
        weights = Choice(self.weights, ("count", "likelihood"))
        return {**({"n": Number(self.n, 1, 64, whole=True)} if self.of else {}), "weights": weights}

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """Its own and those of its parts; what is sampled stays sampled."""
        found = Composite.parameters(self, inputs)
        hot = {f"of.{name}": replace(value, low=_COLDEST) for name, value in _temperatures(self.of).items()}
        return found | {name: value for name, value in hot.items() if value.value > 0}

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """All samples side by side, then the count."""
        steps = yield from together(self._sampled(inputs))
        voters = self._voters(steps)
        if not voters:
            why = next((f"{step.node}: {step.error}" for step in steps if step.error), "every sample was blank")
            return LayerResult(steps=tuple(steps), error=why)
        closed = _closed(voters)
        texts: dict[str, str] = {}
        for step in voters:
            for text in step.probabilities or () if closed else (self._answer(step),):
                texts.setdefault(_key(text, closed), text)
        ballots: list[Ballot] = [{_key(self._answer(step), closed): 1.0} for step in voters]
        if self.weights == "likelihood" and closed:
            ballots = [step.probabilities or {} for step in voters]
        elif self.weights == "likelihood":
            scored = yield from self._likelihoods(inputs, texts)
            if isinstance(scored, str):
                return LayerResult(steps=tuple(steps), error=f"the answers could not be weighed: {scored}")
            ballots = [{key: scored[key] for key in ballot} for ballot in ballots]
        shares = _shares(ballots)
        best = max(shares, key=shares.__getitem__)
        chosen = next((step for step in voters if _key(self._answer(step), closed) == best), voters[0])
        judged = [replace(step, value=shares.get(_key(self._answer(step), closed))) for step in steps]
        return LayerResult(
            {name: chosen.outputs[name] for name in self.outputs[:-1]} | {self.outputs[-1]: texts[best]},
            probabilities={text: shares.get(text, 0.0) for text in texts} if closed else None,
            steps=tuple(judged),
            value=shares[best],
        )

    def _sampled(self, inputs: Mapping[str, str]) -> list[Flow[Step]]:
        if self.of is None:
            return [perform(name, part, inputs) for name, part in self.parts.items()]
        return [varied(perform(f"of {number}", self.of, inputs), number) for number in range(1, int(self.n) + 1)]

    def _answer(self, step: Step) -> str:
        return step.outputs.get(self.outputs[-1], "")

    def _voters(self, steps: Sequence[Step]) -> list[Step]:
        return [step for step in steps if step.error is None and self._answer(step).strip()]

    def _likelihoods(self, inputs: Mapping[str, str], texts: Mapping[str, str]) -> Flow[dict[str, float] | str]:
        """The probability of each answer among these, by its key, or why there is none."""
        if len(texts) == 1:
            return dict.fromkeys(texts, 1.0)
        prompt = _prompt(self.of, inputs, self.outputs[-1])
        chat = isinstance(prompt, Chat)
        written = tuple(continuation(text.strip(), chat) for text in texts.values())
        completion = yield from ask(Score(prompt, written, None if chat else "\n"))
        if completion.loglikelihoods is None:
            return completion.error or ""
        return dict(zip(texts, softmax(completion.loglikelihoods), strict=True))

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said is said of the samples that voted for the answer, at most two different ones of each layer's.

        Where none did (all failed, or a second choice of many won) it is said of the first ones.
        """
        voters = self._voters(step.steps)
        closed = _closed(voters)
        won = [one for one in voters if _key(self._answer(one), closed) == _key(self._answer(step), closed)]
        different: dict[tuple[str, ...], Step] = {}
        for one in won or voters or step.steps:
            different.setdefault((_part(one), *one.outputs.values()), one)
        blamed = list(different.values())[:_BLAMED]
        passed = yield from together([self.part_backward(_part(one), one, said, wanted) for one in blamed])
        found = Gradients()
        for gradients in passed:
            found.add(gradients)
        for texts in (found.parameters, found.inputs):
            texts.update({name: list(dict.fromkeys(about)) for name, about in texts.items()})
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """Every sample, and one request to weigh open answers."""
        each = [part.cost(inputs) for part in self.parts.values()] * (int(self.n) if self.of else 1)
        total = sum(each, Cost())
        choices = all(isinstance(part, Predict) and part.choices for part in self.parts.values())
        if self.weights == "likelihood" and not choices:
            written = len(each) * total.gives.get(self.outputs[-1], 0)
            total += Cost(1, max(cost.read for cost in each) + written)
        return total

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The fields that all parts declare; a part that names none gives the first one's main field."""
        given = spec.get("branches")
        declared: list[tuple[str, ...]] = []
        for part in given.values() if isinstance(given, Mapping) else [spec.get("of")]:
            declared.append(part_outputs(part, declared[0][-1] if declared else name))
        return _common(declared) or (name,)


def _key(text: str, closed: bool) -> str:
    return text if closed else answer_key(text)


def _closed(voters: Sequence[Step]) -> bool:
    """Whether all chose among closed choices, and said how probable each is."""
    return all(step.probabilities is not None for step in voters)


def _part(step: Step) -> str:
    """The part that a step is of: `of 2` is of `of`."""
    return step.node.partition(" ")[0]


def _shares(ballots: Sequence[Ballot]) -> dict[str, float]:
    """Each answer's share of the votes, the answers in the order in which they came."""
    totals: dict[str, float] = {}
    for ballot in ballots:
        for key, weight in ballot.items():
            totals[key] = totals.get(key, 0.0) + weight
    everything = sum(totals.values())
    return {key: total / everything for key, total in totals.items()}


def _common(outputs: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The fields that stand in all of these, in the order of the first."""
    return tuple(name for name in outputs[0] if all(name in others for others in outputs)) if outputs else ()


def _prompt(part: Layer | None, inputs: Mapping[str, str], main: str) -> Prompt:
    """Asks for the main output alone: as a Predict asks, or with nothing but the inputs."""
    if not isinstance(part, Predict):
        return Plain("\n".join([*(f"{label(name)}: {text}" for name, text in inputs.items()), f"{label(main)}:"]))
    demos = tuple(Demo(demo.inputs, {main: demo.outputs[main]}) for demo in part.demos)
    listed = part.choices if part.list_choices == "yes" else ()
    return render(Layout(part.instruction, (main,), demos, listed, part.style == "chat"), inputs)


def _temperatures(layer: Layer | None) -> dict[str, Number]:
    """The temperatures in a layer and its parts, by parameter name."""
    found = layer.parameters(()).items() if layer else ()
    return {name: value for name, value in found if name.split(".")[-1] == "temperature" and isinstance(value, Number)}


def _check_sampled(layer: Layer) -> None:
    """See that samples of a layer can differ."""
    found = _temperatures(layer)
    if not found:
        raise ContentError("of: a layer that always answers alike: give branches, several layers by name", ("of",))
    if not any(value.value > 0 for value in found.values()):
        raise ContentError("of: all samples are alike at temperature 0: set one such as 0.7", ("of",))
