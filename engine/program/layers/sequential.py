"""Sequential: layers one after another, as one layer. A stack whose every layer also sees what came before it.

A step reads the inputs of the whole and what the steps before it wrote, so that a plan can be followed with the
question at hand; the last step's main output is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.errors import ContentError
from engine.flows import Flow
from engine.program.composite import Composite, part_outputs, read_part
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, check_name, perform
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Sequential(Composite):
    """Steps by name, in order.

    Raises:
        ContentError: there is no step, or two of them write a field of one name.
    """

    steps: Mapping[str, Layer]

    kind: ClassVar[str] = "sequential"

    def __post_init__(self) -> None:
        if not self.steps:
            raise ContentError("at least one step is needed", ("steps",))
        written = [name for step in self.steps.values() for name in step.outputs]
        for name in written:
            if written.count(name) > 1:
                raise ContentError(f"two steps write {name!r}: name their outputs apart", ("steps",))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of the last step."""
        return list(self.steps.values())[-1].outputs

    @property
    def summary(self) -> str:
        return " → ".join(self.steps)

    def part_inputs(self, part: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """The inputs of the whole, and the outputs of the steps before."""
        found = list(inputs)
        for name, step in self.steps.items():
            if part == f"steps.{name}":
                break
            found += [output for output in step.outputs if output not in found]
        return tuple(found)

    def part_sizes(self, part: str, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """The inputs of the whole, and what the steps before may write."""
        known = dict(sizes)
        for name, step in self.steps.items():
            if part == f"steps.{name}":
                break
            known |= step.cost(known).gives
        return known

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One step after another, until one fails."""
        values = dict(inputs)
        done: list[Step] = []
        for name, layer in self.steps.items():
            step = yield from perform(f"steps.{name}", layer, values)
            done.append(step)
            if step.error is not None:
                return LayerResult(steps=tuple(done), error=f"{name}: {step.error}")
            values |= step.outputs
        last = done[-1]
        return LayerResult(last.outputs, last.loglikelihoods, last.probabilities, steps=tuple(done))

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """The chain rule: what a step says of its inputs is what was said of the outputs of the steps before it."""
        return self._chain(step, said, wanted)

    def backward_by_field(
        self, step: Step, said: Mapping[str, Sequence[str]], wanted: tuple[str, ...]
    ) -> Flow[Gradients]:
        """The same: the fields are the last step's, unless an earlier one failed, which is then told everything."""
        if step.error is not None:
            return Composite.backward_by_field(self, step, said, wanted)
        return self._chain(step, said, wanted)

    def _chain(
        self, step: Step, said: Sequence[str] | Mapping[str, Sequence[str]], wanted: tuple[str, ...]
    ) -> Flow[Gradients]:
        found = Gradients()
        about: dict[str, list[str]] = {}
        for number, inner in reversed(list(enumerate(step.steps))):
            last = number == len(step.steps) - 1
            heard = said if last else {name: about.pop(name) for name in inner.outputs if name in about}
            if heard:
                before = {name for earlier in step.steps[:number] for name in earlier.outputs}
                mine = tuple(name for name in inner.inputs if name in before or name in wanted)
                passed = yield from self.part_backward(inner.node, inner, heard, mine)
                found.add(Gradients(passed.parameters))
                for name, texts in passed.inputs.items():
                    about.setdefault(name, []).extend(texts)
        found.inputs = {name: about[name] for name in wanted if name in about}
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """The steps' costs together."""
        total = Cost()
        for layer in self.steps.values():
            total += layer.cost({**inputs, **total.gives})
        return total

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The outputs that the last step declares."""
        steps = spec.get("steps")
        if not isinstance(steps, Mapping) or not steps:
            return (name,)
        last, inner = list(steps.items())[-1]
        return part_outputs(inner, last)

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """Every step reads what stands before it, and writes a field of its own name where it names no other."""
        declared = mapping.get("steps")
        if not isinstance(declared, Mapping) or not declared:
            raise ContentError("steps: expected a mapping of steps by name", ("steps",))
        steps: dict[str, Layer] = {}
        known = list(inputs)
        for name, spec in declared.items():
            check_name(name, "step", ("steps",))
            steps[name] = read_part(spec, name, tuple(known), ("steps", name))
            known += [field for field in steps[name].outputs if field not in known]
        return {"steps": steps}
