"""Route: a gate chooses who answers. A sparsely gated mixture of experts, whose experts are layers.

The gate is a classifier over the experts' names; only the `top` most probable experts run, and what they say is
weighed by the gate's probabilities (Shazeer 2017, section 2; Jacobs 1991). Deviations: the gate's probabilities are
those of its own answer, without noise and without a loss for balance, and experts that write text cannot be averaged,
so that their equal answers add up and the heaviest wins. Experts with the same closed choices are averaged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from engine.errors import ContentError
from engine.flows import Flow, together
from engine.program.composite import Composite, part_outputs, read_part
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, check_name, perform
from engine.program.layers.predict import Predict
from engine.program.parameters import Number, Parameter
from engine.records import Step
from engine.tasks.answers import normalized


@dataclass(frozen=True, slots=True)
class Route(Composite):
    """A gate, whose answer is the name of an expert, and experts by name, which all give the same fields.

    In a task file a `predict` gate needs no `choices`: they are the experts' names.

    Raises:
        ContentError: fewer than two experts, experts that differ in their outputs, or a gate that does not choose
            among them.
    """

    gate: Layer
    experts: Mapping[str, Layer]
    top: int = 1

    kind: ClassVar[str] = "route"

    def __post_init__(self) -> None:
        if len(self.experts) < 2:
            raise ContentError("experts: expected at least two", ("experts",))
        for name, expert in self.experts.items():
            check_name(name, "expert", ("experts",))
            if expert.outputs != self.outputs:
                given, first = ", ".join(expert.outputs), ", ".join(self.outputs)
                raise ContentError(
                    f"experts.{name}: it gives {given}, the first expert gives {first}: name their outputs alike",
                    ("experts", name),
                )
        if isinstance(self.gate, Predict) and set(self.gate.choices) != set(self.experts):
            found, known = ", ".join(self.gate.choices) or "none", ", ".join(self.experts)
            raise ContentError(f"gate: expected the experts as choices ({known}), found {found}", ("gate", "choices"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of every expert."""
        return next(iter(self.experts.values())).outputs

    @property
    def summary(self) -> str:
        return f"{self.top} of {', '.join(self.experts)}"

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """top; only 1 with a gate that gives no probabilities."""
        blind = isinstance(self.gate, Predict) and self.gate.scores == "winner"
        return {"top": Number(self.top, 1, 1 if blind else len(self.experts), whole=True)}

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """The gate, then the experts it chose, side by side."""
        gate = yield from perform("gate", self.gate, inputs)
        if gate.error is not None:
            return LayerResult(steps=(gate,), error=f"gate: {gate.error}")
        chosen = self._chosen(gate)
        if isinstance(chosen, str):
            return LayerResult(steps=(gate,), error=f"gate: {chosen}")
        asked = [perform(f"experts.{name}", self.experts[name], inputs) for name in chosen]
        done = yield from together(asked)
        experts = [replace(step, value=weight) for step, weight in zip(done, chosen.values(), strict=True)]
        answered = [step for step in experts if step.error is None]
        if not answered:
            return LayerResult(steps=(gate, *experts), error=f"{next(iter(chosen))}: {experts[0].error}")
        return replace(_mixed(answered, self.outputs[-1]), steps=(gate, *experts))

    def _chosen(self, gate: Step) -> dict[str, float | None] | str:
        """The probability of each expert that is to run, the likeliest first; or why none can."""
        answer = gate.outputs[self.gate.outputs[-1]]
        if answer not in self.experts:
            return f"it chose {answer[:80]!r}, which is no expert"
        if self.top == 1:
            return {answer: (gate.probabilities or {}).get(answer)}
        if gate.probabilities is None or set(gate.probabilities) != set(self.experts):
            return f"it gave no probabilities of the experts, which top {self.top} needs"
        ranked = sorted(gate.probabilities.items(), key=lambda item: -item[1])
        return dict(ranked[: self.top])

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """The experts that gave the answer are told what was said of it, and the gate whom it chose as well."""
        gate, *experts = step.steps
        if not experts:
            return (yield from self.part_backward("gate", gate, said, wanted))
        main = self.outputs[-1]
        answer = step.outputs.get(main)
        gave = [
            inner
            for inner in experts
            if answer is not None and inner.error is None and normalized(inner.outputs[main]) == normalized(answer)
        ]
        names = " and ".join(f'"{inner.node.removeprefix("experts.")}"' for inner in experts)
        asked = [self.part_backward(inner.node, inner, said, wanted) for inner in gave or experts]
        heard = [f"It chose {names}, and of the answer was said: {text}" for text in said]
        asked.append(self.part_backward("gate", gate, heard, wanted))
        found = Gradients()
        for passed in (yield from together(asked)):
            found.add(passed)
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """The gate, and the dearest expert `top` times."""
        dearest = Cost()
        for expert in self.experts.values():
            dearest = dearest.most(expert.cost(inputs))
        total = self.gate.cost(inputs) + dearest * self.top
        return replace(total, gives=dearest.gives)

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The outputs that the first expert declares."""
        experts = spec.get("experts")
        if not isinstance(experts, Mapping) or not experts:
            return (name,)
        return part_outputs(next(iter(experts.values())), name)

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """Every expert writes `output` where it names no other field; the gate chooses among them."""
        experts, gate = mapping.get("experts"), mapping.get("gate")
        if not isinstance(experts, Mapping) or len(experts) < 2:
            raise ContentError("experts: expected a mapping of at least two experts by name", ("experts",))
        for name in experts:
            check_name(name, "expert", ("experts",))
        if isinstance(gate, Mapping) and gate.get("layer") == Predict.kind and "choices" not in gate:
            gate = {**gate, "choices": list(experts)}
        return {
            "gate": read_part(gate, "expert", inputs, ("gate",)),
            "experts": {name: read_part(spec, output, inputs, ("experts", name)) for name, spec in experts.items()},
        }


def _mixed(answered: Sequence[Step], main: str) -> LayerResult:
    """One answer from the experts' steps, the likeliest expert first, each weighed by its `value`."""
    leading = answered[0]
    if len(answered) == 1:
        return LayerResult(leading.outputs, leading.loglikelihoods, leading.probabilities)
    mean = _mean_probabilities(answered)
    weights: dict[str, list[float]] = {}
    for step in answered:
        weights.setdefault(normalized(step.outputs[main]), []).append(step.value or 0.0)
    heaviest = max(weights, key=lambda text: math.fsum(weights[text]))
    answer = max(mean, key=mean.__getitem__) if mean else None
    wanted = heaviest if answer is None else normalized(answer)
    giver = next((step for step in answered if normalized(step.outputs[main]) == wanted), leading)
    return LayerResult(giver.outputs if answer is None else {**giver.outputs, main: answer}, probabilities=mean)


def _mean_probabilities(answered: Sequence[Step]) -> dict[str, float] | None:
    """The experts' probabilities averaged by weight; None unless all chose among the same choices.

    None also where no weight is left: the gate had no doubt, and the expert that it trusted failed.
    """
    first = answered[0].probabilities
    if first is None or any(step.probabilities is None or set(step.probabilities) != set(first) for step in answered):
        return None
    total = math.fsum(step.value or 0.0 for step in answered)
    if total == 0.0:
        return None
    return {
        choice: math.fsum((step.value or 0.0) * (step.probabilities or {})[choice] for step in answered) / total
        for choice in first
    }
