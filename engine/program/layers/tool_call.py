"""ToolCall: the model chooses a tool and writes its arguments, under a grammar made from what the tools take.

So the call always parses and always fits (function calling; compare Gorilla, Patil 2023). The tools are the user's
functions, one of which is then called, or the declarations that an input holds, where the call itself is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.errors import ContentError
from engine.flows import Flow, ask
from engine.program.cost import Cost, tokens
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.layers.predict import Style
from engine.program.parameters import Choice, Number, Parameter, Text
from engine.program.prompt import Layout, render
from engine.program.tools.calls import call_grammar, read_call, written_call
from engine.program.tools.spec import ToolSpec, described, read_tools
from engine.program.tools.toolbox import called, specs_of
from engine.records import Generate, Step


@dataclass(frozen=True, slots=True)
class ToolCall(Layer):
    """What the chosen one of `tools` gives, or the call of one of the functions that the input `functions` declares.

    Raises:
        ContentError: not exactly one of both is given.
    """

    tools: tuple[str, ...] = ()
    functions: str = ""
    output: str = "answer"
    instruction: str = "Choose the function that does what is asked, and its arguments."
    style: Style = "chat"
    max_tokens: int = 200

    kind: ClassVar[str] = "tool_call"

    def __post_init__(self) -> None:
        if bool(self.tools) == bool(self.functions):
            raise ContentError("give either tools (your functions) or functions (the input that declares them)")

    @property
    def summary(self) -> str:
        names = ", ".join(tool.rpartition(":")[2] for tool in self.tools)
        return f"{names} (your code)" if self.tools else f"of {self.functions}"

    @property
    def outside(self) -> tuple[Outside, ...]:
        return tuple(Outside("tool", tool) for tool in self.tools)

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """Instruction, style and the most tokens of a call."""
        return {
            "instruction": Text(self.instruction),
            "style": Choice(self.style, ("chat", "plain")),
            "max_tokens": Number(self.max_tokens, 16, 2000, whole=True),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One call of the model, and one of the tool it chose where it is the user's."""
        try:
            specs = (yield from specs_of(self.tools)) if self.tools else self._declared(inputs)
            request = self._request(specs, {name: text for name, text in inputs.items() if name != self.functions})
        except ContentError as error:
            return LayerResult(error=str(error))
        completion = yield from ask(request)
        if completion.text is None:
            return LayerResult(error=completion.error)
        try:
            name, arguments = read_call(completion.text, specs)
        except ContentError as error:
            cut = f"the call was truncated at {completion.generated_tokens} tokens"
            return LayerResult(error=f"unparsed: {cut if completion.finish == 'length' else error}")
        call = written_call(name, arguments)
        if not self.tools:
            return LayerResult({self.output: call})
        tool = self.tools[[spec.name for spec in specs].index(name)]
        answer = yield from called(tool, arguments)
        step = Step(name, {"call": call}, {"result": answer.text or ""}, (answer.key,), error=answer.error)
        if answer.text is None:
            return LayerResult(steps=(step,), error=f"{name}: {answer.error}")
        return LayerResult({self.output: answer.text}, steps=(step,))

    def _declared(self, inputs: Mapping[str, str]) -> tuple[ToolSpec, ...]:
        if self.functions not in inputs:
            raise ContentError(f"no input is called {self.functions!r}: it should declare the functions")
        return read_tools(inputs[self.functions])

    def _request(self, specs: Sequence[ToolSpec], inputs: Mapping[str, str]) -> Generate:
        chat = self.style == "chat"
        instruction = f"{self.instruction}\n{described(specs)}"
        prompt = render(Layout(instruction, ("call",), chat=chat), inputs)
        return Generate(prompt, int(self.max_tokens), stop=("\n",), grammar=call_grammar(specs))

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """One call, which reads the tools and writes up to its cap."""
        read = tokens(self.instruction) + sum(inputs.values())
        return Cost(1, read, int(self.max_tokens), {self.output: int(self.max_tokens)})
