"""What tests of evolution share: candidates with given figures on dev, and a script that keeps what it was asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.inference.scripted import Answer
from engine.optim.history import Candidate
from engine.program.graph import Program
from engine.records import Chat, Example, Generate, Prediction, Request, Step, Trace

Figure = tuple[float, int, float]


def candidate(
    number: int, program: Program, scores: Sequence[float], parent: int = 0, edits: Mapping[str, Any] | None = None
) -> Candidate:
    """A candidate with these scores on dev; its program is that of `program` with the edits."""
    figures = [(score, 10, 0.1) for score in scores]
    made = program.replace(edits) if edits else program
    return Candidate(number, made, traces_of(made, figures), 1, "test", "", parent, edits or {})


def traces_of(program: Program, figures: Sequence[Figure]) -> tuple[Trace, ...]:
    """Executions on dev with these scores, tokens and seconds."""
    return tuple(
        Trace(
            program.fingerprint,
            Example(f"dev-{place}", {"text": f"dev {place}"}, ("red",)),
            (Step("colour", {"text": f"dev {place}"}, {"colour": "red"}, tokens=tokens, seconds=seconds),),
            Prediction("red"),
            score,
        )
        for place, (score, tokens, seconds) in enumerate(figures)
    )


class Scribe:
    """A model that answers as told, and keeps the last turn of everything it was asked to write for an optimizer."""

    def __init__(self, answer: Callable[[Request, str], Answer]) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def __call__(self, request: Request, prompt: str) -> Answer:
        if isinstance(request, Generate) and request.role == "optimizer":
            assert isinstance(request.prompt, Chat)
            self.asked.append(request.prompt.messages[-1].text)
        return self._answer(request, prompt)
