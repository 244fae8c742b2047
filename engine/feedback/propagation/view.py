"""View: what trace propagation shows of a program and its failed executions, under the names it has as pseudo-code."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine.feedback.propagation.edits import editable
from engine.feedback.propagation.subgraph import between, end_of, on_shortest_paths
from engine.feedback.propagation.variables import Variables
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.layer import Node
from engine.program.parameters import Parameter, Source, Text
from engine.records import Step, Trace

_MOST_FAILURES = 8
_MOST_PARAMETERS = 24
_INNER_STEPS = 6
_INNER_CHARS = 200


@dataclass(frozen=True, slots=True)
class View:
    """The failures that edits can reach, the nodes between the two, the parameters to edit, and what all is called."""

    program: Program
    failed: tuple[Trace, ...]
    nodes: tuple[Node, ...]
    parameters: dict[str, Parameter]
    names: Variables

    @classmethod
    def of(cls, program: Program, traces: Sequence[Trace], also: Collection[str] = ()) -> "View":
        """What there is to see in some executions; of very many failures and parameters the first, and texts first."""
        found = editable(program, also)
        with_edits = _nodes_of(found)
        failed = [
            trace
            for trace in traces
            if trace.score < 1.0 and trace.steps and between(program, with_edits, [end_of(program, trace)])
        ][:_MOST_FAILURES]
        nodes = between(program, with_edits, [end_of(program, trace) for trace in failed])
        inside = [node.name for node in nodes]
        reached = [name for name in found if name.partition(".")[0] in inside]
        chosen = sorted(reached, key=lambda name: not isinstance(found[name], Text | Source))[:_MOST_PARAMETERS]
        parameters = {name: found[name] for name in reached if name in chosen}
        return cls(program, tuple(failed), nodes, parameters, Variables.of(program))

    def taken(self, trace: Trace) -> list[tuple[Node, Step]]:
        """The nodes that an execution came to, with what they did."""
        steps = {step.node: step for step in trace.steps}
        return [(node, steps[node.name]) for node in self.nodes if node.name in steps]

    def inputs(self, trace: Trace) -> dict[str, str]:
        """What the nodes read from outside in an execution, by variable."""
        inside = [node.name for node in self.nodes]
        return {
            self.names.values[reference]: step.inputs[name]
            for node, step in self.taken(trace)
            for name, reference in node.sources.items()
            if "." not in reference or reference.split(".")[0] not in inside
        }

    def outputs(self, node: Node, step: Step) -> dict[str, str]:
        """What a node wrote, by variable."""
        written = {field: step.outputs[field] for field in node.layer.outputs if field in step.outputs}
        return {self.names.values[f"{node.name}.{field}"]: text for field, text in written.items()}

    def inner(self, node: Node, step: Step) -> list[str]:
        """What the first parts of a composite node did, a line each."""
        lines = []
        for inner in step.steps[:_INNER_STEPS]:
            text = list(inner.outputs.values())[-1] if inner.outputs else ""
            did = f"gave {one_line(text, _INNER_CHARS)}"
            if inner.error is not None:
                did = f"failed: {one_line(inner.error, _INNER_CHARS)}"
            lines.append(f"in {node.name}, {inner.node} {did}")
        return lines

    def end(self, trace: Trace) -> str:
        """The node with which an execution ended."""
        return end_of(self.program, trace)

    def on_path(self, trace: Trace) -> frozenset[str]:
        """The nodes by the shortest way from what can be edited to the end of an execution."""
        return on_shortest_paths(self.nodes, _nodes_of(self.parameters), self.end(trace))


def _nodes_of(names: Collection[str]) -> list[str]:
    """The nodes that parameters belong to."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
