"""What tests of layers share: a script of answers, layers run alone, their gradients, and round trips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.flows import Flow
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend
from engine.inference.service import Service
from engine.program.critique import Gradients
from engine.program.graph import Program
from engine.program.layer import Input, Layer, perform
from engine.records import Chat, Generate, Request, Role, Step
from engine.store.store import Store


@dataclass
class Script:
    """Answers task requests by the first words that stand in their prompt; a critique of X says `change X`.

    An answer is a text, a list of log-likelihoods, or a function of the request that gives one of these.
    """

    answers: "Mapping[str, Answer | Callable[[Any], Answer]]"
    asked: list[str] = field(default_factory=list)
    __name__ = "script"

    def __call__(self, request: Request, prompt: str) -> Answer:
        if request.role == "optimizer":
            assert isinstance(request, Generate)
            assert isinstance(request.prompt, Chat)
            text = request.prompt.messages[-1].text
            self.asked.append(text)
            return "change " + text.split("say how the ")[1].split(" should change")[0]
        answer = next(answer for words, answer in self.answers.items() if words in prompt)
        return answer(request) if callable(answer) else answer


def run(flow: Flow[Any], script: Script, services: Mapping[Role, Service] | None = None) -> Any:
    """The result of a flow, its model requests answered by the script and the others by services."""
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), services) as runtime:
        return runtime.run(flow)


def done(layer: Layer, script: Script, services: Mapping[Role, Service] | None = None, **inputs: str) -> Step:
    """What a layer leaves in the trace when it is run alone."""
    step: Step = run(perform("node", layer, inputs), script, services)
    return step


def gradients(layer: Layer, step: Step, script: Script, *wanted: str) -> Gradients:
    """What a layer's backward rule says after `It was wrong.` was said of its output."""
    found: Gradients = run(layer.backward(step, ["It was wrong."], wanted), script)
    return found


def round_trip(layer: Layer, *inputs: str) -> None:
    """A program of this one layer is written and read back the same."""
    program = Program(layer(*map(Input, inputs)))
    again = Program.from_mapping(program.to_mapping())
    assert again == program
    assert again.fingerprint == program.fingerprint
