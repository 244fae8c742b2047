"""Residual: an input passed on as it is, unless a layer's change to it is better. The skip connection (He 2016).

Where theirs adds the change to the input, texts cannot be added: one of the two is passed on, and `preferred` decides
with `margin` as its bias. So a rewrite can be put anywhere without harm where it does not help, as far as the model can
tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.errors import ContentError
from engine.flows import Flow
from engine.program.composite import Composite
from engine.program.cost import Cost, tokens
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, check_name, perform
from engine.program.layers.predict import Style
from engine.program.parameters import Choice, Number, Parameter, Text
from engine.program.preference import BETTER, Judged, preferred
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Residual(Composite):
    """`of` rewrites the input `field` (by default the last); its main output is kept where it is better by `margin`.

    Better means log-odds, in nats, above `margin`. A change that failed, is blank or could not be judged is not kept.
    The log-odds stand in the step `of`.
    """

    of: Layer
    output: str
    field: str = ""
    margin: float = 0.0
    question: str = BETTER
    style: Style = "chat"

    kind: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        check_name(self.output, "output", ("outputs",))

    @property
    def summary(self) -> str:
        margin = f" by {self.margin:g} nats" if self.margin else ""
        return f"keeps {self.field or 'the last input'} unless the change is better{margin}"

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """margin, question and style.

        Raises:
            ContentError: `field` is none of the inputs.
        """
        if inputs and self.field and self.field not in inputs:
            raise ContentError(f"field {self.field!r} is no input here: one of {', '.join(inputs)}", ("field",))
        return {
            "margin": Number(self.margin, -20, 20),
            "question": Text(self.question),
            "style": Choice(self.style, ("chat", "plain")),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """The change, then the choice between it and the input."""
        field = self._field(inputs)
        if field not in inputs:
            return LayerResult(error=f"no input {field!r} to keep")
        before = inputs[field]
        step = yield from perform("of", self.of, inputs)
        after = step.outputs.get(self.of.outputs[-1], "")
        judged = Judged()
        if step.error is None and after.strip():
            judged = yield from preferred(inputs, field, before, after, self.question, self.style == "chat")
            step = judged.of(step)
        better = judged.log_odds is not None and judged.log_odds > self.margin
        return LayerResult({self.output: after if better else before}, steps=(step,))

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said passes through the connection that was used.

        Where the input was kept it is said of the input, word for word, and a change that failed hears of its failure;
        else it is said of the change.
        """
        if not step.steps:
            return Gradients()
        (change,) = step.steps
        field = self._field(step.inputs)
        if step.outputs.get(self.output) != step.inputs[field]:
            found = yield from self.part_backward("of", change, said, wanted)
            return found
        found = Gradients()
        if change.error is not None and not change.outputs:
            found = yield from self.part_backward("of", change, [f"The step failed: {change.error}."], ())
        if field in wanted:
            found.inputs[field] = list(said)
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """The change, and the judgement in both orders."""
        change = self.of.cost(inputs)
        after = change.gives.get(self.of.outputs[-1], 0)
        before = inputs.get(self._field(inputs), 0)
        judged = Cost(1, tokens(self.question) + sum(inputs.values()) + after) * 2
        return change + judged + Cost(gives={self.output: max(before, after)})

    def _field(self, inputs: Mapping[str, object]) -> str:
        return self.field or (list(inputs)[-1] if inputs else "")
