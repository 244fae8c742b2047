"""Recurrence: which programs carry something from one example to the next, and how it goes on.

A program stays immutable. What it carries are parameters of its writing memories, wherever they stand; after an example
there is another program, with other notes.
"""

from collections.abc import Iterator
from dataclasses import replace

from engine.flows import Flow, observed, together
from engine.program.event import Event
from engine.program.graph import Program
from engine.program.layer import Layer, LayerResult, Node
from engine.program.layers.memory import Memory
from engine.records import Completion, Step


def carries_state(program: Program) -> bool:
    """Whether an example changes how the next one is answered."""
    return any(_memories(program))


def remembered(program: Program, event: Event) -> Flow[tuple[Program, tuple[Step, ...]]]:
    """The program after an event, and a step for each of its memories that says what it wrote.

    Of the program's inputs a memory learns those that its node reads; all of them where the node reads none. A memory
    whose writing failed stays as it was, with the error in its step.
    """
    found = list(_memories(program))
    steps = yield from together([_written(program, *place, event) for place in found])
    edits = {
        f"{name}.entries": memory.holding(step.outputs["note"]).entries
        for (_, name, memory), step in zip(found, steps, strict=True)
        if step.error is None
    }
    return program.replace(edits), tuple(steps)


def _memories(program: Program) -> Iterator[tuple[Node, str, Memory]]:
    """Every writing memory with its node, and the name under which its parameters stand in the program."""
    for node in program.nodes:
        for name, layer in _with_parts(node.name, node.layer):
            if isinstance(layer, Memory) and layer.write != "none":
                yield node, name, layer


def _with_parts(name: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    yield name, layer
    for part, inner in layer.parts.items():
        yield from _with_parts(f"{name}.{part}", inner)


def _written(program: Program, node: Node, name: str, memory: Memory, event: Event) -> Flow[Step]:
    read = [reference for reference in node.sources.values() if reference in event.inputs]
    learned = replace(event, inputs={reference: event.inputs[reference] for reference in read or event.inputs})
    done: list[Completion] = []
    result: LayerResult = yield from observed(memory.note(learned), done)
    shown = {**learned.inputs, program.output: event.answer}
    if event.verdict:
        shown["verdict"] = event.verdict
    keys = tuple(completion.key for completion in done)
    return Step(f"{name}.write", shown, result.outputs, keys, error=result.error)
