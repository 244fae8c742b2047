"""Agent: think, use a tool, look at what it gave, and again, until the answer (ReAct; Yao 2023). A recurrent layer.

Deviation: every turn is written under a grammar of one thought and one call, so that it always parses; `finish` is a
tool like the others, and the only one on the last turn, so that there always is an answer.

Beside the user's functions there may be functions of the program's own, whose source is a weight: an optimizer may add,
revise and remove them (functions as learnable weights; AgentOptimizer; Zhang 2024). They run in the sandbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from engine.errors import ContentError
from engine.flows import Flow, ask, observed
from engine.program.cost import Cost, tokens
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.layers.predict import Style
from engine.program.layers.retrieve import written
from engine.program.parameters import Choice, Number, Parameter, Source, Text
from engine.program.prompt import Layout, render
from engine.program.tools.calls import call_pattern, read_call, written_call
from engine.program.tools.spec import ToolSpec, described
from engine.program.tools.toolbox import called, called_function, specs_of
from engine.program.tools.written import read_functions
from engine.program.typed.grammar import LINE, Exactly, Repeat, Then, gbnf
from engine.records import Chat, Completion, Generate, Plain, Prompt, Search, Step

_THOUGHT_CHARS = 160
_OBSERVED_TOKENS = 100


def _own_tool(name: str, description: str, argument: str, longest: int) -> ToolSpec:
    """A tool of the agent itself, which takes one text."""
    text = {"type": "string", "maxLength": longest}
    parameters = {"type": "object", "properties": {argument: text}, "required": [argument]}
    return ToolSpec.from_schema({"name": name, "description": description, "parameters": parameters})


_SEARCH = _own_tool("search", "Find passages about something.", "query", 100)
_FINISH = _own_tool("finish", "Give the answer.", "answer", 120)


@dataclass(frozen=True, slots=True)
class Agent(Layer):
    """An answer after at most `steps` turns with `tools`, the user's functions, and the search of an index.

    `source` holds functions of the program's own, in Python. A tool that fails tells the model why, and the next turn
    goes on from there. What a tool gives is shown up to `observed` characters.

    Raises:
        ContentError: there is neither a tool nor an index, or `source` holds no functions.
    """

    tools: tuple[str, ...] = ()
    index: str = ""
    output: str = "answer"
    instruction: str = "Think about what to do next, then use one tool. Finish with a short answer."
    steps: int = 4
    k: int = 2
    observed: int = 400
    temperature: float = 0.0
    max_tokens: int = 160
    style: Style = "chat"
    source: str = ""

    kind: ClassVar[str] = "agent"

    def __post_init__(self) -> None:
        try:
            own = read_functions(self.source)
        except ContentError as error:
            raise ContentError(f"source: {error}", ("source",)) from None
        if not self.tools and not self.index and not own:
            raise ContentError("an agent needs tools (your functions), an index to search, or a source with functions")

    @property
    def summary(self) -> str:
        names = [f"{tool.rpartition(':')[2]} (your code)" for tool in self.tools]
        names += [f"{function.name} (sandbox)" for function in read_functions(self.source)]
        return " · ".join([*([f"search of {self.index}"] if self.index else []), *names, f"{self.steps} steps"])

    @property
    def outside(self) -> tuple[Outside, ...]:
        index = (Outside("index", self.index),) if self.index else ()
        return (*index, *(Outside("tool", tool) for tool in self.tools))

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """Instruction, source, style; numbers: turns, passages of a search, characters shown, temperature, tokens."""
        return {
            "instruction": Text(self.instruction),
            "source": Source(self.source, functions=True),
            "style": Choice(self.style, ("chat", "plain")),
            "steps": Number(self.steps, 1, 20, whole=True),
            "k": Number(self.k, 1, 10, whole=True),
            "observed": Number(self.observed, 40, 8000, whole=True),
            "temperature": Number(self.temperature, 0, 2),
            "max_tokens": Number(self.max_tokens, 40, 2000, whole=True),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Turn after turn."""
        done: list[Step] = []
        try:
            specs = self._all(tuple((yield from specs_of(self.tools))))
        except ContentError as error:
            return LayerResult(error=str(error))
        pad = ""
        for turn in range(1, int(self.steps) + 1):
            offered = specs if turn < self.steps else (_FINISH,)
            completion = yield from ask(self._request(inputs, specs, offered, pad))
            thought, name, arguments, wrong = _read(completion, offered)
            call = written_call(name, arguments) if not wrong else ""
            wrote = {"thought": thought, "action": call}
            done.append(Step(f"think {turn}", {}, wrote, (completion.key,) if completion.key else (), error=wrong))
            if wrong:
                return LayerResult(steps=tuple(done), error=wrong)
            if name == _FINISH.name:
                return LayerResult({self.output: str(arguments["answer"])}, steps=tuple(done))
            step = yield from self._act(turn, name, arguments, specs)
            done.append(step)
            seen = step.outputs["observation"]
            pad += f" {thought}\nAction: {call}\nObservation: {' '.join(seen.split())[: int(self.observed)]}\nThought:"
        raise AssertionError("unreachable: the last turn finishes")

    def _all(self, own: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
        """Every tool the model may use, `finish` last."""
        written = tuple(function.spec for function in read_functions(self.source))
        specs = (*((_SEARCH,) if self.index else ()), *own, *written, _FINISH)
        names = [spec.name for spec in specs]
        for tool in (*self.tools, *(spec.name for spec in written)):
            name = tool.rpartition(":")[2]
            if names.count(name) > 1:
                raise ContentError(f"tool {tool!r}: {name!r} is a name that the agent uses itself: rename it")
        return specs

    def _request(
        self, inputs: Mapping[str, str], specs: Sequence[ToolSpec], offered: Sequence[ToolSpec], pad: str
    ) -> Generate:
        chat = self.style == "chat"
        layout = Layout(f"{self.instruction}\nTools:\n{described(specs)}", ("thought",), chat=chat)
        prompt = _gone_on(render(layout, inputs), pad)
        turn = Then((Exactly(" "), Repeat(LINE, 5, _THOUGHT_CHARS), Exactly("\nAction: "), call_pattern(offered)))
        return Generate(prompt, int(self.max_tokens), temperature=self.temperature, grammar=gbnf(turn))

    def _act(self, turn: int, name: str, arguments: Mapping[str, object], specs: Sequence[ToolSpec]) -> Flow[Step]:
        """The chosen tool, used; what it gave, or why it failed, is the observation."""
        given = {key: str(value) for key, value in arguments.items()}
        if name == _SEARCH.name and self.index:
            found = yield from ask(Search(self.index, str(arguments["query"]), int(self.k)))
            passages = found.passages or ()
            text = written(passages) or found.error or "nothing was found"
            keys = (found.key,) if found.key else ()
            return Step(f"{name} {turn}", given, {"observation": text}, keys, passages=passages)
        tool = next((tool for tool in self.tools if tool.rpartition(":")[2] == name), None)
        ran: list[Completion] = []
        gave, error = yield from observed(self._used(tool, name, arguments), ran)
        observation = gave if gave is not None else f"error: {error}"
        return Step(f"{name} {turn}", given, {"observation": observation}, tuple(call.key for call in ran))

    def _used(self, tool: str | None, name: str, arguments: Mapping[str, object]) -> Flow[tuple[str | None, str]]:
        """What one of the user's functions gives or, where `tool` is None, one of the program's own; else why not."""
        if tool is None:
            return (yield from called_function(self.source, name, arguments))
        answer = yield from called(tool, arguments)
        return answer.text, answer.error or ""

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """As for any layer that is told what to do, with the turns before the critic's eyes."""
        turns = {
            inner.node.replace(" ", "_"): " · ".join(text for text in inner.outputs.values() if text)
            for inner in step.steps
        }
        whole = replace(step, outputs={**turns, **step.outputs})
        found: Gradients = yield from super(Agent, self).backward(whole, said, wanted)
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """A call a turn, each reading what the turns before wrote and saw."""
        turns = int(self.steps)
        start = tokens(self.instruction) + sum(inputs.values())
        grown = int(self.max_tokens) + min(_OBSERVED_TOKENS, int(self.observed))
        read = turns * start + grown * turns * (turns - 1) // 2
        last = start + grown * (turns - 1) + int(self.max_tokens)
        return Cost(turns, read, turns * int(self.max_tokens), {self.output: 30}, longest=last)


def _gone_on(prompt: Prompt, pad: str) -> Prompt:
    """A prompt that the turns so far have gone on from, ending where the next thought begins."""
    if isinstance(prompt, Plain):
        return Plain(prompt.text + pad)
    return Chat(prompt.messages, lead=f"Thought:{pad}")


def _read(completion: Completion, offered: Sequence[ToolSpec]) -> tuple[str, str, dict[str, object], str | None]:
    """Thought, tool, arguments, and what is wrong where they cannot be read."""
    if completion.text is None:
        return "", "", {}, completion.error or "no answer"
    thought, _, call = completion.text.partition("\nAction: ")
    try:
        name, arguments = read_call(call, offered)
    except ContentError as error:
        cut = f"the turn was truncated at {completion.generated_tokens} tokens"
        return thought.strip(), "", {}, f"unparsed: {cut if completion.finish == 'length' else error}"
    return thought.strip(), name, arguments, None
