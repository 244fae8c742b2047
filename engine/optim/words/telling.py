"""Telling: executions in words, on lines of their own or in full with the feedback on them."""

from collections.abc import Mapping

from engine.feedback.backward import found_wrong, loss_in_words
from engine.optim.words.writing import ARROW
from engine.program.event import one_line
from engine.program.places import steps_of
from engine.program.prompt import label
from engine.records import Trace

_MOST_CHARS = 300  # of a field
_LINE_CHARS = 160  # of a field on a line


def on_a_line(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """`Word: hot -> Opposite: cold`: what went in and what came out, long fields cut."""
    left, right = (
        ", ".join(f"{label(name)}: {one_line(text, _LINE_CHARS)}" for name, text in fields.items())
        for fields in (inputs, outputs)
    )
    return f"{left} {ARROW} {right}"


def execution(trace: Trace, name: str, judged: bool = True) -> str:
    """One execution as the node, or the part of a node, of the text `name` has seen it; `judged` with the feedback.

    Of a part that was done several times it is the first time. Feedback is about the program's answer, and what judges
    found wrong; what else an earlier node should have said nobody knows.
    """
    step = next(iter(steps_of(trace.steps, name)), None)
    fields = (*step.inputs.items(), *step.outputs.items()) if step else trace.example.inputs.items()
    lines = [f"{label(field)}: {text[:_MOST_CHARS]}" for field, text in fields]
    if judged:
        said = [loss_in_words(trace)] if trace.score < 1.0 else []
        said += [judgement.said for judgement in found_wrong(trace) if judgement.said]
        lines.append(f"Feedback: {' '.join(said) or 'The answer is right.'}")
    return "\n".join(lines)
