"""Places: where in a program a text acts, what it has been seen to do there, and whose turn it is.

A text parameter is named by the way to it: `answer.instruction` is that of a node, `answer.of.instruction` that of a
part of one, `answer.steps.reason.instruction` that of a step in a part.
"""

from collections.abc import Mapping, Sequence

from numpy.random import Generator

from engine.optim.history import History
from engine.optim.writing import ARROW
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.layer import Layer
from engine.program.prompt import label
from engine.records import Step, Trace

_FIELD_CHARS = 160


def layer_of(program: Program, name: str) -> Layer:
    """The layer, or the part of one, that a parameter belongs to."""
    node, _, rest = name.partition(".")
    layer = program.node(node).layer
    while (part := next((part for part in layer.parts if rest.startswith(f"{part}.")), None)) is not None:
        layer, rest = layer.parts[part], rest.removeprefix(f"{part}.")
    return layer


def steps_of(steps: Sequence[Step], name: str) -> list[Step]:
    """What was done under a parameter, in order: a step for each time its node or part did its work.

    `name` is the way to it from `steps` on. A text that has steps of its own, such as the critique of a layer that
    refines, stands for those.
    """
    found: list[Step] = []
    for step in steps:
        place = step.node.partition(" ")[0]
        if name == place:
            found.append(step)
        elif name.startswith(f"{place}."):
            rest = name.removeprefix(f"{place}.")
            found += steps_of(step.steps, rest) or ([step] if "." not in rest else [])
    return found


def seen_at(trace: Trace, name: str) -> list[Step]:
    """What was done under a parameter in an execution, without what failed."""
    return [step for step in steps_of(trace.steps, name) if step.error is None and step.outputs]


def on_a_line(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """`Word: hot -> Opposite: cold`: what went in and what came out, long fields cut."""
    left, right = (
        ", ".join(f"{label(name)}: {one_line(text, _FIELD_CHARS)}" for name, text in fields.items())
        for fields in (inputs, outputs)
    )
    return f"{left} {ARROW} {right}"


def next_text(history: History, proposer: str, names: Sequence[str], rng: Generator) -> str:
    """The text that a proposer edits in this play, where it edits one at a time: drawn, as below.

    The more of the proposer's candidates have edited a text, the less likely it is (1 in 1 + their number): all have
    their turn, and one for which the model writes nothing useful does not hold the others up.
    """
    edited = [sum(name in candidate.edits for candidate in history.by(proposer)) for name in names]
    weights = [1 / (1 + count) for count in edited]
    return names[int(rng.choice(len(names), p=[weight / sum(weights) for weight in weights]))]
