"""Critiques: one sentence on how something should change, asked of the model that writes feedback.

They are what textual gradients are made of (TextGrad; Yuksekgonul 2024, section 3): a layer's backward rule says what
to ask about. Deviation: a critique is a single sentence, decoded under a grammar, so that a very small model can write
it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.flows import Flow, ask
from engine.program.prompt import label
from engine.program.typed.grammar import prose
from engine.records import Chat, Generate, Message, Step

ONE_SENTENCE = prose(240)
_TOKENS = 56
_INPUT_CHARS, _OUTPUT_CHARS = 600, 300


@dataclass(slots=True)
class Gradients:
    """What should change, in sentences: by the name of a parameter, and by the name of an input."""

    parameters: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, parameters: Iterable[str], texts: Sequence[str], inputs: Iterable[str] = (), about: Sequence[str] = ()
    ) -> "Gradients":
        """One text for each name, in order; an empty text says nothing."""
        return cls(
            {name: [text] for name, text in zip(parameters, texts, strict=True) if text},
            {name: [text] for name, text in zip(inputs, about, strict=True) if text},
        )

    def add(self, other: "Gradients", part: str = "") -> None:
        """Take over what another says, of the parameters of a part where one is named."""
        for name, texts in other.parameters.items():
            self.parameters.setdefault(f"{part}.{name}" if part else name, []).extend(texts)
        for name, texts in other.inputs.items():
            self.inputs.setdefault(name, []).extend(texts)


def critique(step: Step, said: Sequence[str], what: str, instruction: str = "") -> Flow[str]:
    """How `what` should change, given what was `said` about the output of a step; empty if no answer came.

    `instruction` is what the step was told to do, where it was told.
    """
    lines = [f"Instruction: {instruction}" if instruction else ""]
    lines += [f"{label(name)}: {text[:_INPUT_CHARS]}" for name, text in step.inputs.items()]
    lines += [f"{label(name)}: {text[:_OUTPUT_CHARS]}" for name, text in step.outputs.items()]
    lines += [f"Mistake: {text}" for text in said]
    lines.append(f"In one sentence, say how the {what.lower()} should change so that this mistake does not happen.")
    turns = (
        Message("system", "You give short, concrete advice on how to improve instructions."),
        Message("user", "\n".join(line for line in lines if line)),
    )
    completion = yield from ask(Generate(Chat(turns), _TOKENS, stop=("\n",), grammar=ONE_SENTENCE, role="optimizer"))
    return (completion.text or "").strip()
