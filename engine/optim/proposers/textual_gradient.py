"""textual_gradient: rewrite an instruction in the direction of its textual gradient (TextGrad; Yuksekgonul 2024).

The loop runs backward over a minibatch; this proposer takes one step along the result. Deviations: the new instruction
is decoded under a grammar, so that it always parses; several are sampled and raced instead of trusting one; an answer
that was cut off, is empty or changes nothing is dropped.
"""

from numpy.random import Generator

from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.program.parameters import Text
from engine.program.typed.grammar import prose
from engine.records import Chat, Feedback, Generate, Message

_PARAGRAPH = prose(400)
_TOKENS = 96
_SAMPLES = 3
_TEMPERATURE = 0.7


class TextualGradientProposer:
    """Proposes rewritten instructions for every text parameter that has feedback."""

    name = "textual_gradient"
    wants_feedback = True

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Up to three rewrites for each parameter with feedback."""
        base = int(rng.integers(0, 2**31))
        rewrites = yield from together([_rewrites(history, feedback, base) for feedback in history.feedback])
        return [proposal for proposals in rewrites for proposal in proposals]


def _rewrites(history: History, feedback: Feedback, base: int) -> Flow[list[Proposal]]:
    parameter = history.incumbent.parameters.get(feedback.parameter)
    if not isinstance(parameter, Text):
        return []
    turns = (
        Message("system", "You improve instructions for a language model. You answer with the new instruction only."),
        Message(
            "user",
            f"Current instruction: {parameter.value}\n\nIts mistakes, and advice:\n{feedback.text}\n\n"
            "Write a better instruction of one to three sentences that follows the advice.",
        ),
    )
    requests = [
        Generate(
            Chat(turns), _TOKENS, stop=("\n",), temperature=_TEMPERATURE, top_p=0.95, sample=base + number,
            grammar=_PARAGRAPH, role="optimizer",
        )
        for number in range(_SAMPLES)
    ]  # fmt: skip
    completions = yield from together([ask(request) for request in requests])
    texts = dict.fromkeys((item.text or "").strip() for item in completions if item.finish == "stop" and not item.error)
    return [
        Proposal({feedback.parameter: text}, f"{feedback.parameter} rewritten: {text}")
        for text in texts
        if text and text != parameter.value and len(text) <= parameter.max_chars
    ]
