"""Tool: a user's Python function as a layer. A fixed activation function: it has no weights of its own.

The layer's inputs are the function's arguments by name, read as the types it declares; its result is the output. It
runs as the user's own code, with all its rights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.errors import ContentError
from engine.flows import Flow
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.tools.toolbox import called, specs_of, typed
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Tool(Layer):
    """The result of the function that `file.py:function` names; the file's path starts from the task's folder."""

    python: str
    output: str = "result"

    kind: ClassVar[str] = "tool"

    @property
    def summary(self) -> str:
        return f"{self.python} (your code)"

    @property
    def outside(self) -> tuple[Outside, ...]:
        return (Outside("tool", self.python),)

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One call."""
        try:
            (spec,) = yield from specs_of([self.python])
            arguments = typed(spec, inputs)
        except ContentError as error:
            return LayerResult(error=f"{self.python}: {error}")
        completion = yield from called(self.python, arguments)
        if completion.text is None:
            return LayerResult(error=completion.error)
        return LayerResult({self.output: completion.text})

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call of a model."""
        return Cost()

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the result is said of each argument that somebody wrote."""
        yield from ()
        name = self.python.rpartition(":")[2]
        gave = step.error or next(iter(step.outputs.values()), "")
        return Gradients(inputs={key: [f"{name} gave {gave[:200]!r}: {text}" for text in said] for key in wanted})
