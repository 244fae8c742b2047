"""Variables: what the values and parameters of a program are called where it is written as pseudo-code.

    answer = predict(question, instruction=answer_instruction)

A program input keeps its name, the main output of a node is called after the node, another one `node_field`, and the
parameter `node.part.name` is `node_part_name`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.program.graph import Program
from engine.program.layer import Layer, Node


@dataclass(frozen=True, slots=True)
class Variables:
    """Names, no two of them alike: of values by their references, of parameters by their names in the program."""

    values: Mapping[str, str]
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, program: Program) -> "Variables":
        """The names in a program. They depend on its graph alone, so that an answer can be read with them."""
        values = {name: name for name in program.inputs}
        values |= {f"{node.name}.{node.layer.outputs[-1]}": node.name for node in program.nodes}
        taken = set(values.values())
        others = [f"{node.name}.{field}" for node in program.nodes for field in node.layer.outputs[:-1]]
        values |= {reference: _free(reference, taken) for reference in others}
        return cls(values, {name: _free(name, taken) for name in program.parameters})

    def assignment(self, node: Node, shown: Iterable[str]) -> str:
        """The line that computes a node, with those of its parameters that are `shown`."""
        outputs = ", ".join(self.values[f"{node.name}.{field}"] for field in node.layer.outputs)
        given = [self.values[reference] for reference in node.sources.values()]
        own = {name.partition(".")[2]: self.parameters[name] for name in shown if name.startswith(f"{node.name}.")}
        summary = f"  # {node.layer.summary}" if node.layer.summary else ""
        return f"{outputs} = {_call(node.layer, given, own)}{summary}"


def _call(layer: Layer, given: list[str], parameters: Mapping[str, str]) -> str:
    """A layer as a call: its inputs, its own parameters, and its parts with theirs."""
    inner: dict[str, dict[str, str]] = {part: {} for part in layer.parts}
    own: list[str] = []
    for name, variable in parameters.items():
        part = next((part for part in inner if name.startswith(f"{part}.")), None)
        if part is None:
            own.append(f"{name}={variable}")
        else:
            inner[part][name.removeprefix(f"{part}.")] = variable
    parts = [f"{name.split('.')[-1]}={_call(layer.parts[name], [], theirs)}" for name, theirs in inner.items()]
    return f"{layer.kind}({', '.join([*given, *own, *parts])})"


def _free(name: str, taken: set[str]) -> str:
    """The name with `_` for its dots, and as many more at its end as set it apart from those that are taken."""
    free = name.replace(".", "_")
    while free in taken:
        free += "_"
    taken.add(free)
    return free
