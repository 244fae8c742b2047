"""Parallel: layers side by side on the same inputs, as one layer. Branches, whose outputs are fields of their own.

Each branch gives its main output as a field named after the branch; whatever else it writes stands in the trace alone.
All branches are asked in one batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from engine.errors import ContentError
from engine.flows import Flow, together
from engine.program.composite import Composite, read_part
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, check_name, perform
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Parallel(Composite):
    """Branches by name; the last one's output is the main one.

    Raises:
        ContentError: there is no branch, or one has a name that no field can have.
    """

    branches: Mapping[str, Layer]

    kind: ClassVar[str] = "parallel"

    def __post_init__(self) -> None:
        if not self.branches:
            raise ContentError("at least one branch is needed", ("branches",))
        for name in self.branches:
            check_name(name, "branch", ("branches",))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the branches."""
        return tuple(self.branches)

    @property
    def summary(self) -> str:
        return " | ".join(self.branches)

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Every branch at once. One that fails fails the whole."""
        done = yield from together([perform(f"branches.{name}", part, inputs) for name, part in self.branches.items()])
        for name, step in zip(self.branches, done, strict=True):
            if step.error is not None:
                return LayerResult(steps=tuple(done), error=f"{name}: {step.error}")
        main = {
            name: step.outputs[part.outputs[-1]] for (name, part), step in zip(self.branches.items(), done, strict=True)
        }
        return LayerResult(main, done[-1].loglikelihoods, done[-1].probabilities, steps=tuple(done))

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the whole is said of every branch."""
        return self.backward_by_field(step, dict.fromkeys(self.outputs, said), wanted)

    def backward_by_field(
        self, step: Step, said: Mapping[str, Sequence[str]], wanted: tuple[str, ...]
    ) -> Flow[Gradients]:
        """Each branch is told what was said of its own field; where some failed, they are told all of it, and alone."""
        blamed = {inner.node for inner in step.steps if inner.error is not None}
        everything = list(dict.fromkeys(text for texts in said.values() for text in texts))
        asked = []
        for inner in step.steps:
            name = inner.node.removeprefix("branches.")
            heard = said.get(name, ()) if not blamed else everything if inner.node in blamed else ()
            if heard:
                main = self.branches[name].outputs[-1]
                asked.append(self.part_backward(inner.node, inner, {main: heard}, wanted))
        found = Gradients()
        for passed in (yield from together(asked)):
            found.add(passed)
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """The branches' costs together."""
        total, gives = Cost(), {}
        for name, part in self.branches.items():
            cost = part.cost(inputs)
            total += cost
            if part.outputs[-1] in cost.gives:
                gives[name] = cost.gives[part.outputs[-1]]
        return replace(total, gives=gives)

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The names of the branches."""
        branches = spec.get("branches")
        return tuple(map(str, branches)) if isinstance(branches, Mapping) and branches else (name,)

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """Every branch writes a field of its own name where it names no other."""
        declared = mapping.get("branches")
        if not isinstance(declared, Mapping) or not declared:
            raise ContentError("branches: expected a mapping of branches by name", ("branches",))
        for name in declared:
            check_name(name, "branch", ("branches",))
        return {
            "branches": {name: read_part(spec, name, inputs, ("branches", name)) for name, spec in declared.items()}
        }
