"""Code: a function in Python, run in the sandbox, whose source is a weight. A learned activation function.

Its inputs are variables of the code, as texts, and its output is the value of the last line. An optimizer may rewrite
the source as it rewrites an instruction (code as a parameter, as in Trace; Cheng 2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.flows import Flow, together
from engine.program.code import check_seconds, run_python, with_value, written_code
from engine.program.cost import Cost
from engine.program.critique import Gradients, critique
from engine.program.layer import Layer, LayerResult
from engine.program.parameters import Parameter, Source
from engine.program.prompt import label
from engine.records import Step


@dataclass(frozen=True, slots=True)
class Code(Layer):
    """The value of `source`, as text.

    Raises:
        ContentError: `seconds` is out of bounds.
    """

    source: str
    output: str = "result"
    seconds: float = 1.0

    kind: ClassVar[str] = "code"

    def __post_init__(self) -> None:
        check_seconds(self.seconds)

    @property
    def summary(self) -> str:
        lines = len(self.source.splitlines())
        return f"{lines} line{'s' * (lines != 1)} of Python"

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """The source."""
        return {"source": Source(self.source)}

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One run."""
        text, error = yield from run_python(with_value(written_code(self.source)), dict(inputs), self.seconds)
        return LayerResult(error=error) if text is None else LayerResult({self.output: text})

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call of a model."""
        return Cost()

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """A critique of the code, which is shown where an instruction would be, and of each wanted input."""
        asked = ["code", *map(label, wanted)]
        answers = yield from together([critique(step, said, what, self.source) for what in asked])
        return Gradients.of(["source"], answers[:1], wanted, answers[1:])
