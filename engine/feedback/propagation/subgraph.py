"""The minimal sub-graph: the part of a program through which edits can reach what was wrong (Cheng 2024, section 3).

It holds the nodes with something to edit and those between them and where an execution ended. What lies before them is
known from its values alone, and what lies beside them or behind the end is left out.
"""

from collections.abc import Collection, Sequence

from engine.program.graph import Program
from engine.program.layer import Node
from engine.records import Trace


def end_of(program: Program, trace: Trace) -> str:
    """The node with which an execution ended: the one that failed, else the one that gives the answer."""
    return next((step.node for step in trace.steps if step.error is not None), program.output_node.name)


def between(program: Program, editable: Collection[str], ends: Collection[str]) -> tuple[Node, ...]:
    """The nodes, in program order, that read from a node of `editable` or are one, and that one of `ends` reads from.

    Both directly or through others. A node is taken to read from itself.
    """
    before: set[str] = set(ends)
    for node in reversed(program.nodes):
        if node.name in before:
            before.update(sources_of(node))
    after: set[str] = set()
    for node in program.nodes:
        if node.name in editable or after.intersection(sources_of(node)):
            after.add(node.name)
    return tuple(node for node in program.nodes if node.name in before and node.name in after)


def on_shortest_paths(nodes: Sequence[Node], editable: Collection[str], end: str) -> frozenset[str]:
    """Of a sub-graph's nodes those on the shortest path from a node of `editable` to `end`, of equal ones the first."""
    steps_left: dict[str, int] = {end: 0}
    for node in reversed(nodes):
        if node.name in steps_left:
            for source in sources_of(node):
                steps_left[source] = min(steps_left.get(source, len(nodes)), steps_left[node.name] + 1)
    found: set[str] = set()
    for node in nodes:
        if node.name in steps_left and (node.name in editable or node.name in found):
            found.add(node.name)
            next_left = steps_left[node.name] - 1
            readers = (one.name for one in nodes if node.name in sources_of(one))
            found.update([name for name in readers if steps_left.get(name) == next_left][:1])
    return frozenset(found)


def sources_of(node: Node) -> tuple[str, ...]:
    """The names of the nodes that a node reads from directly."""
    return tuple(reference.split(".")[0] for reference in node.sources.values() if "." in reference)
