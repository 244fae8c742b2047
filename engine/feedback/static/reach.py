"""What is computed or given for nothing: nodes, inputs and fields that nothing on the way to the answer reads."""

from collections.abc import Iterator

from engine.feedback.static.finding import Finding, some
from engine.feedback.static.subject import Subject
from engine.program.graph import Program
from engine.program.layer import Node, is_users
from engine.program.layers import Parallel, RunCode, ToolCall
from engine.program.places import places


def live_nodes(program: Program) -> list[Node]:
    """The nodes that the answer depends on, in the program's order."""
    wanted = {program.output}
    live: list[Node] = []
    for node in reversed(program.nodes):
        if any(f"{node.name}.{name}" in wanted for name in node.layer.outputs):
            live.insert(0, node)
            wanted |= set(node.sources.values())
    return live


def dead_nodes(subject: Subject) -> Iterator[Finding]:
    """Nodes whose work nobody reads. They run all the same, and an example fails where one of them does."""
    live = {node.name for node in live_nodes(subject.program)}
    for node in subject.program.nodes:
        if node.name not in live:
            text = "it runs for every example, and nothing on the way to the answer reads what it gives"
            yield Finding("warning", "dead_node", node.name, text, "drop the node, or let a later one read it")


def unused_inputs(subject: Subject) -> Iterator[Finding]:
    """Inputs of the program that no live node reads, and inputs of the rows that the program does not have."""
    program = subject.program
    read = {reference for node in live_nodes(program) for reference in node.sources.values()}
    for name in program.inputs:
        if name not in read:
            text = f"the program has an input {name!r}, and nothing on the way to the answer reads it"
            yield Finding("warning", "unused_input", "inputs", text, "let a node read it, or drop it")
    given = subject.rows[0].inputs if subject.rows else {}
    for name in given:
        if name not in program.inputs:
            text = f"the rows have an input {name!r}, and the program reads {some(program.inputs)}"
            yield Finding("note", "unused_data", f"data.inputs.{name}", text, "let a node read it, or drop it")


def unused_fields(subject: Subject) -> Iterator[Finding]:
    """Fields of live nodes that are written for nobody.

    What a model writes before a field that is read is its reasoning, and of use; what it writes after the last of them
    is not, nor is a branch whose field nobody reads.
    """
    program = subject.program
    live = live_nodes(program)
    read = {program.output, *(reference for node in live for reference in node.sources.values())}
    for node in live:
        fields = node.layer.outputs
        if is_users(type(node.layer)):
            continue
        last = max(place for place, name in enumerate(fields) if f"{node.name}.{name}" in read)
        free = fields if isinstance(node.layer, Parallel) else fields[last + 1 :]
        idle = [name for name in free if f"{node.name}.{name}" not in read]
        if idle:
            text = f"nothing reads {some(idle)}, which is written all the same"
            yield Finding("warning", "unused_field", node.name, text, "drop it, or let a later node read it")


def missing_fields(subject: Subject) -> Iterator[Finding]:
    """Settings that name an input which the layer does not have."""
    for place in places(subject.program):
        layer, read = place.layer, some(list(place.sources))
        if isinstance(layer, RunCode) and layer.then and layer.then not in place.sources:
            text = f"then names {layer.then!r}, which is no input here, so nothing is run behind the code"
            yield Finding("warning", "missing_field", f"{place.name}.then", text, f"name one of its inputs: {read}")
        if isinstance(layer, ToolCall) and layer.functions and layer.functions not in place.sources:
            text = f"functions names {layer.functions!r}, which is no input here, so every call fails"
            yield Finding("error", "missing_field", f"{place.name}.functions", text, f"name one of its inputs: {read}")
