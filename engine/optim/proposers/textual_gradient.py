"""textual_gradient: rewrite a text in the direction of its textual gradient (TextGrad; Yuksekgonul 2024).

Backward over a minibatch says how each text should change; this proposer takes one step along it. With momentum, as
there: what the accepted edits of the run did to the same text is told too, the latest first. Deviations: the new text
is decoded under a grammar, so that it always parses; several are sampled and raced instead of trusting one; and where
several texts have a gradient, those are followed whose advice makes the accepted answers of the failures likelier.
"""

from collections.abc import Sequence

from numpy.random import Generator

from engine.feedback.attribution import can_be_attributed, supported
from engine.feedback.backward import backward
from engine.feedback.packing import Part
from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.minibatch import failures, minibatch
from engine.optim.words.texts import fits, texts_of
from engine.optim.words.writing import Brief, written
from engine.program.graph import Program
from engine.program.parameters import Text
from engine.records import Feedback, Trace

_SAMPLES = 3
_CHECKED = 8  # failures on which advice is checked
_SYSTEM = "You improve instructions for a language model. You answer with the new instruction only."


class TextualGradientProposer:
    """Proposes rewritten texts for every text parameter that has a gradient."""

    name = "textual_gradient"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Up to three rewrites for each parameter with a gradient."""
        traces = yield from minibatch(history, history.program)
        feedback = yield from backward(history.program, failures(traces))
        texts = texts_of(history.program)
        found = [item for item in feedback if item.parameter in texts]
        said = yield from _supported(history, found, failures(traces))
        generators = rng.spawn(len(said))
        rewrites = yield from together(
            [
                _rewrites(history, item, texts[item.parameter], generator)
                for item, generator in zip(said, generators, strict=True)
            ]
        )
        return [proposal for proposals in rewrites for proposal in proposals]


def _supported(history: History, said: Sequence[Feedback], traces: Sequence[Trace]) -> Flow[Sequence[Feedback]]:
    """Gradients that likelihood bears out; all of them where it bears out none, or cannot be had."""
    if len(said) < 2 or not can_be_attributed(history.program):
        return said
    gains = yield from supported(history.program, said, [trace.example for trace in traces][:_CHECKED])
    return [item for item, gain in zip(said, gains, strict=True) if gain > 0] or said


def _rewrites(history: History, feedback: Feedback, parameter: Text, rng: Generator) -> Flow[list[Proposal]]:
    name = feedback.parameter
    parts = (
        Part(f"Current instruction: {parameter.value}\n"),
        *_momentum(history, name),
        Part(f"Its mistakes, and advice:\n{feedback.text}\n", 1.0),
        Part("Write a better instruction of one to three sentences that follows the advice."),
    )
    texts = yield from written(history, Brief(_SYSTEM, parts), _SAMPLES, rng)
    return [Proposal({name: text}, f"{name} rewritten: {text}") for text in texts if fits(parameter, text)]


def _momentum(history: History, name: str) -> list[Part]:
    """Earlier values of a text that were improvements when they came, the latest first and most relevant."""
    earlier = [one for one in reversed(history.accepted) if name in one.edits]
    return [
        Part(f"This helped before (+{100 * one.gain:.0f} points): {one.edits[name]}\n", 1 / (number + 2))
        for number, one in enumerate(earlier[:3])
    ]
