"""RunCode: run the code that another node wrote, in the sandbox. An activation function that the network computes.

The code is the last input, in a fence or not; the other inputs are its variables. Where its last line assigns a name,
the name's value is the answer, as in program-aided models (PAL; Gao 2023), and so is that of a function `solution()`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.flows import Flow
from engine.program.code import OnError, blamed, check_seconds, run_python, with_value, written_code
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult
from engine.records import Step


@dataclass(frozen=True, slots=True)
class RunCode(Layer):
    """The value of a program, as text.

    `then` names an input whose text is run behind the code, such as tests; what these end with is "ok" where they have
    no value. `on_error: text` gives the error as the output instead of failing.

    Raises:
        ContentError: `seconds` is out of bounds.
    """

    output: str = "result"
    then: str = ""
    on_error: OnError = "fail"
    seconds: float = 1.0

    kind: ClassVar[str] = "run_code"

    def __post_init__(self) -> None:
        check_seconds(self.seconds)

    @property
    def summary(self) -> str:
        return f"Python, {self.seconds:g} s" + (f", then {self.then}" if self.then else "")

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One run."""
        *others, main = inputs
        code = written_code(inputs[main])
        source = f"{code}\n{inputs[self.then]}" if self.then in inputs else with_value(code)
        variables = {name: inputs[name] for name in others if name != self.then}
        text, error = yield from run_python(source, variables, self.seconds)
        if text is None:
            return (
                LayerResult({self.output: f"error: {error}"}) if self.on_error == "text" else LayerResult(error=error)
            )
        return LayerResult({self.output: "ok" if self.then in inputs and text == "None" else text})

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call of a model."""
        return Cost()

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the result is said of the code, which alone made it."""
        yield from ()
        return blamed(step, "Run, the code", said, wanted)
