"""The graph: an immutable DAG of layers with named inputs and one output.

Built in functional style, as in Keras: calling a layer on symbols adds a node.

    question = Input("question")
    answer = Predict("Classify the question.", choices=("person", "place"))(question)
    program = Program(answer)

A reference is written `question` (a program input) or `node.field` (a field of a node's output). Nodes are kept in an
order in which each comes after what it reads. A program knows no model: `engine.bind` gives it one to call.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.errors import ContentError
from engine.program.layer import LAYERS, Node, Outside, Symbol, check_name, layer_kind
from engine.program.parameters import Parameter
from engine.records import Prediction
from engine.tasks.taskfile import nearest
from engine.tasks.textfile import is_whole

Runner = Callable[["Program", Mapping[str, str]], Prediction]


@dataclass(frozen=True, slots=True, init=False)
class Program:
    """An immutable program. Two programs with the same content have the same `fingerprint`."""

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: str
    runner: Runner | None = field(default=None, compare=False, repr=False)

    def __init__(self, output: Symbol) -> None:
        """Collect the graph that ends in `output`.

        Raises:
            ContentError: there is no layer in it, or a name is used twice.
        """
        nodes: dict[str, Node] = {}
        inputs: dict[str, None] = {}

        def visit(symbol: Symbol) -> None:
            if symbol.node is None:
                inputs[symbol.field] = None
                return
            name = symbol.node.name
            if nodes.get(name) is symbol.node:
                return
            for parent in symbol.parents:
                visit(parent)
            if name in nodes:
                raise ContentError(f"two nodes are called {name!r}: give one another name")
            nodes[name] = symbol.node

        visit(output)
        if output.node is None:
            raise ContentError("a program needs at least one layer")
        _check_unique((*inputs, *nodes))
        self._set(tuple(inputs), tuple(nodes.values()), output.reference)

    @classmethod
    def assemble(cls, inputs: Iterable[str], nodes: Iterable[Node], output: str) -> "Program":
        """A program from its parts, in any order of nodes.

        Raises:
            ContentError: a name is used twice, a reference leads nowhere, or the nodes form a circle.
        """
        program = object.__new__(cls)
        program._set(tuple(inputs), _ordered(tuple(inputs), tuple(nodes)), output)
        return program

    def _set(self, inputs: tuple[str, ...], nodes: tuple[Node, ...], output: str, runner: Runner | None = None) -> None:
        references = {*inputs, *(f"{node.name}.{name}" for node in nodes for name in node.layer.outputs)}
        for node in nodes:
            for reference in node.sources.values():
                if reference not in references:
                    raise ContentError(f"node {node.name!r} reads {reference!r}, which is no input and no node's field")
        if output not in references or output in inputs:
            raise ContentError(f"output {output!r} is no node's field", ("output",))
        for name, value in (("inputs", inputs), ("nodes", nodes), ("output", output), ("runner", runner)):
            object.__setattr__(self, name, value)

    @property
    def output_node(self) -> Node:
        """The node whose field is the program's answer."""
        return self.node(self.output.split(".")[0])

    @property
    def output_field(self) -> str:
        """The field of `output_node` that is the program's answer."""
        return self.output.split(".")[1]

    def node(self, name: str) -> Node:
        """A node by its name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ContentError(f"no node {name!r}: {nearest(name, [node.name for node in self.nodes])}")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter, as `node.parameter`."""
        return {f"{node.name}.{name}": value for node in self.nodes for name, value in node.parameters().items()}

    @property
    def outside(self) -> tuple[Outside, ...]:
        """What the program needs beside itself: indexes, tools and other files, each once."""
        return tuple(dict.fromkeys(need for node in self.nodes for need in node.layer.outside))

    def replace(self, edits: Mapping[str, Any]) -> "Program":
        """The same program with some parameters at new values, all checked.

        An edit may set a parameter that only another of the edits brings in.

        Raises:
            ContentError: no such parameter, or a value it cannot take; the message starts with its name.
        """
        known = self.parameters
        brought = {name: value for name, value in edits.items() if name not in known}
        if brought and len(brought) == len(edits):
            unknown = next(iter(brought))
            raise ContentError(f"no parameter {unknown!r}: {nearest(unknown, list(known))}")
        by_node: dict[str, dict[str, Any]] = {}
        for name, value in ((name, value) for name, value in edits.items() if name in known):
            try:
                checked = known[name].check(value)
            except ContentError as error:
                raise ContentError(f"{name}: {error}", error.path) from None
            node, _, short = name.partition(".")
            by_node.setdefault(node, {})[short] = checked
        nodes = tuple(
            replace(node, layer=node.layer.with_parameters(by_node[node.name])) if node.name in by_node else node
            for node in self.nodes
        )
        program = self._like(nodes, self.runner)
        return program.replace(brought) if brought else program

    def bound(self, runner: Runner | None) -> "Program":
        """The same program, to be executed by `runner` when it is called."""
        return self._like(self.nodes, runner)

    def _like(self, nodes: tuple[Node, ...], runner: Runner | None) -> "Program":
        program = object.__new__(Program)
        program._set(self.inputs, nodes, self.output, runner)
        return program

    def __call__(self, **inputs: str) -> Prediction:
        """Run on one example, with the model that `engine.bind` gave.

        Raises:
            ContentError: an input is missing or unknown, or the program has no model.
        """
        if self.runner is None:
            raise ContentError("this program has no model to run on: bind it to one with engine.bind(program, runtime)")
        self.check_inputs(inputs)
        return self.runner(self, inputs)

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """See that exactly the program's inputs are given.

        Raises:
            ContentError: one is missing, unknown, or text that cannot be written.
        """
        for name, text in inputs.items():
            if name not in self.inputs:
                raise ContentError(f"the program has no input {name!r}: {nearest(name, list(self.inputs))}")
            if not is_whole(text):
                raise ContentError(f"input {name!r} holds half of a surrogate pair, which is no character")
        for name in self.inputs:
            if name not in inputs:
                raise ContentError(f"input {name!r} is missing: the program reads {', '.join(self.inputs)}")

    def to_mapping(self) -> dict[str, Any]:
        """The program as plain data, which `from_mapping` reads back to an equal program."""
        nodes: dict[str, Any] = {}
        for node in self.nodes:
            sources: Any = list(node.sources.values())
            if [_short(reference) for reference in sources] != list(node.sources):
                sources = dict(node.sources)
            nodes[node.name] = {"layer": node.layer.kind, "inputs": sources, **node.layer.to_mapping()}
        return {"inputs": list(self.inputs), "nodes": nodes, "output": self.output}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Program":
        """Read a program from plain data: the full form of `to_mapping`, or just its nodes by name.

        In the short form what no node defines is a program input and the last node gives the answer. A node with one
        output may be referred to by its bare name.

        Raises:
            ContentError: something is unknown, missing or circular; `path` leads to the place.
        """
        inner = mapping.get("nodes")
        full = "nodes" in mapping and not (isinstance(inner, Mapping) and "layer" in inner)
        declared: Any = inner if full else mapping
        base: tuple[str, ...] = ("nodes",) if full else ()
        if full:
            for key in mapping:
                if key not in ("inputs", "nodes", "output"):
                    known = nearest(str(key), ["inputs", "nodes", "output"])
                    raise ContentError(f"unknown key {key!r}: {known}", (key,))
        if not isinstance(declared, Mapping) or not declared:
            raise ContentError("a program needs at least one node", base)
        outputs = {name: _output_names(name, spec, (*base, name)) for name, spec in declared.items()}
        nodes = []
        inputs: dict[str, None] = dict.fromkeys(_declared_inputs(mapping) if full else ())
        for name, spec in declared.items():
            node = _read_node(name, spec, outputs, (*base, name))
            nodes.append(node)
            for reference in node.sources.values():
                if "." not in reference:
                    if full and reference not in inputs:
                        raise ContentError(f"no input or node is called {reference!r}", (*base, name, "inputs"))
                    inputs[reference] = None
        last = nodes[-1]
        output = f"{last.name}.{last.layer.outputs[-1]}"
        if full and mapping.get("output") is not None:
            output = _resolve(str(mapping["output"]), None, outputs, ("output",))
        return cls.assemble(inputs, nodes, output)

    @property
    def fingerprint(self) -> str:
        """A hash of the content: 24 hexadecimal digits."""
        text = json.dumps(self.to_mapping(), sort_keys=False, ensure_ascii=False, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _short(reference: str) -> str:
    return reference.split(".")[-1]


def _declared_inputs(mapping: Mapping[str, Any]) -> list[str]:
    """The program inputs that the full form names."""
    listed = mapping.get("inputs")
    if not isinstance(listed, list):
        raise ContentError("a program needs inputs: a list of names", ("inputs",))
    for name in listed:
        check_name(name, "input", ("inputs",))
    return listed


def _output_names(name: str, spec: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """Which fields a declared node gives, before it is read."""
    check_name(name, "node", path)
    try:
        return LAYERS[layer_kind(spec)].declared_outputs(spec, name)
    except ContentError as error:
        raise ContentError(f"node {name!r}: {error}", (*path, *error.path)) from None


def _read_node(
    name: str, spec: Mapping[str, Any], outputs: Mapping[str, tuple[str, ...]], path: tuple[str, ...]
) -> Node:
    listed = spec.get("inputs")
    if isinstance(listed, list) and listed:
        pairs = [(_short(str(reference)), str(reference)) for reference in listed]
    elif isinstance(listed, Mapping) and listed:
        pairs = [(str(own), str(reference)) for own, reference in listed.items()]
    else:
        wanted = "a list of program inputs or node.field"
        found = f", not {listed!r}" if listed else ""
        raise ContentError(f"node {name!r} needs inputs: {wanted}{found}", (*path, "inputs"))
    sources: dict[str, str] = {}
    for own, reference in pairs:
        check_name(own, "field", (*path, "inputs"))
        if own in sources:
            raise ContentError(f"node {name!r} reads two fields called {own!r}", (*path, "inputs"))
        sources[own] = _resolve(reference, name, outputs, (*path, "inputs"))
    settings = {key: value for key, value in spec.items() if key not in ("layer", "inputs")}
    try:
        layer = LAYERS[spec["layer"]].from_mapping(settings, name, tuple(sources))
    except ContentError as error:
        raise ContentError(f"node {name!r}: {error}", (*path, *error.path)) from None
    return Node(name, layer, sources)


def _resolve(reference: str, reader: str | None, outputs: Mapping[str, tuple[str, ...]], path: tuple[str, ...]) -> str:
    node, dot, given = reference.partition(".")
    if not dot:
        if node in outputs and node != reader:
            return f"{node}.{outputs[node][-1]}"
        check_name(reference, "input", path)
        return reference
    if node not in outputs:
        raise ContentError(f"{reference!r} names no node: {nearest(node, list(outputs))}", path)
    if given not in outputs[node]:
        raise ContentError(f"node {node!r} has no output {given!r}: {nearest(given, list(outputs[node]))}", path)
    return reference


def _ordered(inputs: tuple[str, ...], nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Nodes so that each comes after what it reads; the given order is kept where it can be."""
    _check_unique((*inputs, *(node.name for node in nodes)))
    done: set[str] = set()
    ordered: list[Node] = []
    waiting = list(nodes)
    while waiting:
        ready = next((node for node in waiting if _needs(node) <= done), None)
        if ready is None:
            circle = ", ".join(node.name for node in waiting)
            raise ContentError(f"nodes read one another in a circle or from nowhere: {circle}")
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return tuple(ordered)


def _check_unique(names: tuple[str, ...]) -> None:
    """See that no two inputs and nodes share a name: a bare reference means one of them."""
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise ContentError(f"the name {repeated!r} is used twice: give an input or a node another one")


def _needs(node: Node) -> set[str]:
    return {reference.split(".")[0] for reference in node.sources.values() if "." in reference}
