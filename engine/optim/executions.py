"""Executions in words: what the node that a text belongs to was given, what it made of it, and how that was."""

from collections.abc import Sequence

from engine.feedback.backward import found_wrong, loss_in_words
from engine.program.prompt import label
from engine.records import Step, Trace

_MOST_CHARS = 300  # of a field


def execution(trace: Trace, name: str, judged: bool = True) -> str:
    """One execution as the node, or the part of a node, of the text `name` has seen it; `judged` with the feedback.

    Feedback is about the program's answer, and what judges found wrong; what else an earlier node should have said
    nobody knows.
    """
    step = _step_of(trace.steps, name)
    fields = (*step.inputs.items(), *step.outputs.items()) if step else trace.example.inputs.items()
    lines = [f"{label(field)}: {text[:_MOST_CHARS]}" for field, text in fields]
    if judged:
        said = [loss_in_words(trace)] if trace.score < 1.0 else []
        said += [judgement.said for judgement in found_wrong(trace) if judgement.said]
        lines.append(f"Feedback: {' '.join(said) or 'The answer is right.'}")
    return "\n".join(lines)


def _step_of(steps: Sequence[Step], name: str) -> Step | None:
    """The step of a parameter, given by its name from there on; of a part that was done several times the first."""
    for step in steps:
        head = step.node.partition(" ")[0]
        if name == head or name.startswith(f"{head}."):
            return _step_of(step.steps, name.removeprefix(f"{head}.")) or step
    return None
