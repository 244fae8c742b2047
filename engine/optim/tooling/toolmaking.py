"""Toolmaking: what the proposers share that write functions: where code is a weight, and what a function gives on rows.

There are two kinds of it. The source of a `code` layer is a script: a function takes what the node reads, and the
script ends with its call. The source of an agent holds functions, which the model calls beside the user's. A function
is run in the sandbox alone: in a script by running the program, as a tool by having the model write the call.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import ContentError
from engine.flows import Flow, ask, together
from engine.optim.history import History
from engine.optim.tooling.coding import normalized
from engine.program.composite import Composite
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.layer import Layer
from engine.program.parameters import Source
from engine.program.prompt import Layout, render
from engine.program.tools.calls import call_grammar, read_call
from engine.program.tools.spec import described
from engine.program.tools.toolbox import called_function
from engine.program.tools.written import Function, parsed, read_functions
from engine.records import Example, Generate, Prediction, Trace

_SHOWN_CHARS = 300
_CALL_TOKENS = 120
_INSTRUCTION = "Call the function so that it gives the answer."
_AGENTS_OWN = ("finish", "search")


# ── code in programs ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Code:
    """A parameter that holds code. `reads` are the texts that its layer is given, `taken` names that others have."""

    name: str
    source: Source
    reads: tuple[str, ...]
    taken: tuple[str, ...] = ()

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions in it; none where it cannot be read as functions."""
        try:
            return read_functions(self.source.value)
        except ContentError:
            return ()

    def alone(self, code: str) -> str:
        """A source of nothing but a function."""
        return code if self.source.functions else f"{code}\n\n\n{name_of(code)}({', '.join(self.reads)})"

    def added(self, *codes: str) -> str:
        """The source with functions more; a script gives what the last of them gives."""
        kept = self.source.value.strip() if self.source.functions else _definitions(self.source.value)
        return "\n\n\n".join([kept, *codes[:-1], self.alone(codes[-1])]).lstrip()

    def revised(self, name: str, code: str) -> str:
        """The source with other code in the place of a function."""
        old = next(function.code for function in self.functions if function.name == name)
        return self.source.value.replace(old, code, 1)

    def without(self, name: str) -> str:
        """The source without a function."""
        return self.revised(name, "").strip()

    def takes(self, value: str) -> bool:
        """Whether a source is another one than it is now, and one that it can take."""
        try:
            return self.source.check(value) != self.source.value
        except ContentError:
            return False


def code_in(program: Program) -> list[Code]:
    """Every parameter of a program that holds code."""
    found = []
    tools = tuple(need.name.rpartition(":")[2] for need in program.outside if need.kind == "tool")
    for name, value in program.parameters.items():
        if isinstance(value, Source):
            node = program.node(name.partition(".")[0])
            reads = _reads(node.layer, node.inputs, name.partition(".")[2])
            found.append(Code(name, value, reads, (*tools, *_AGENTS_OWN) if value.functions else reads))
    return found


def name_of(code: str) -> str:
    """The name of a function."""
    return read_functions(code)[0].name


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Problem:
    """A train row as a place sees it: `given` is what its layer read, or the program where that is not known."""

    given: Mapping[str, str]
    trace: Trace

    @property
    def example(self) -> Example:
        """The row."""
        return self.trace.example

    @property
    def text(self) -> str:
        """The row in words, with its right answer."""
        lines = [f"{name}: {' '.join(text.split())[:_SHOWN_CHARS]}" for name, text in self.given.items()]
        return "\n".join([*lines, f"result: {(self.example.target or '')[:_SHOWN_CHARS]}"])


@dataclass(frozen=True, slots=True)
class Gave:
    """What a function came to on one row: a text with its score, or why there is none."""

    text: str
    score: float
    error: str | None = None


def problems(history: History, place: Code, rows: int) -> Flow[list[Problem]]:
    """The incumbent run on the first rows this round has drawn."""
    traces = yield from history.objective.run(history.program, history.drawn[:rows])
    node = place.name.partition(".")[0]
    found = []
    for trace in traces:
        read = next((step.inputs for step in trace.steps if step.node == node), {})
        known = all(name in read for name in place.reads)
        found.append(Problem({name: read[name] for name in place.reads} if known else trace.example.inputs, trace))
    return found


def row_calls(history: History, place: Code) -> int:
    """How many calls of a model `gave` makes for one row, at most."""
    return 1 if place.source.functions else estimate(history.program, {}).calls


def gave(history: History, place: Code, code: str, value: str, rows: Sequence[Problem]) -> Flow[list[Gave]]:
    """What a function gives on rows, in their order, with `value` as the source that it stands in.

    One that hits a limit on the first row is not run on the others.
    """
    first = yield from _ran(history, place, code, value, rows[:1])
    if first and first[0].error and " limit: " in first[0].error:
        return first * len(rows)
    return first + (yield from _ran(history, place, code, value, rows[1:]))


def different(place: Code, tools: Mapping[str, Sequence[Gave]]) -> dict[str, Sequence[Gave]]:
    """Functions without those that are another one in other words, or gave the same on every row; the first stay.

    The functions that the place has already count as the first.
    """
    kept: dict[str, Sequence[Gave]] = {}
    seen: set[object] = {normalized(function.code) for function in place.functions}
    for code, results in tools.items():
        marks: list[object] = [normalized(code)]
        if any(one.error is None for one in results):
            marks.append(tuple((one.text, one.error is None) for one in results))
        if seen.isdisjoint(marks):
            kept[code] = results
        seen.update(marks)
    return kept


def _ran(history: History, place: Code, code: str, value: str, rows: Sequence[Problem]) -> Flow[list[Gave]]:
    """A script is run with its program. A tool is called, with arguments that the task's model writes."""
    if place.source.functions:
        return (yield from together([_called(history, name_of(code), value, row) for row in rows]))
    program = history.program.replace({place.name: value})
    traces = yield from history.objective.run(program, [row.example for row in rows])
    return [Gave(trace.prediction.text, trace.score, trace.prediction.error) for trace in traces]


def _called(history: History, name: str, value: str, row: Problem) -> Flow[Gave]:
    specs = [function.spec for function in read_functions(value) if function.name == name]
    prompt = render(Layout(f"{_INSTRUCTION}\n{described(specs)}", ("call",)), row.given)
    completion = yield from ask(Generate(prompt, _CALL_TOKENS, stop=("\n",), grammar=call_grammar(specs)))
    try:
        _, arguments = read_call(completion.text or "", specs)
    except ContentError as error:
        return Gave("", 0.0, f"no call: {error}")
    text, wrong = yield from called_function(value, name, arguments)
    if text is None:
        return Gave("", 0.0, wrong)
    return Gave(text, history.objective.metric.score(Prediction(text), row.example))


def _reads(layer: Layer, inputs: tuple[str, ...], short: str) -> tuple[str, ...]:
    """The fields that the layer with a parameter is given, be it the node's own or a part of it."""
    for part, inner in layer.parts.items():
        if short.startswith(f"{part}."):
            given = layer.part_inputs(part, inputs) if isinstance(layer, Composite) else inputs
            return _reads(inner, given, short.removeprefix(f"{part}."))
    return inputs


def _definitions(script: str) -> str:
    """A script up to its last function or import: what there is to call, without the calls."""
    try:
        body = parsed(script).body
    except ContentError:
        return ""
    ends = [node.end_lineno or 0 for node in body if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)]
    return "\n".join(script.split("\n")[: max(ends, default=0)])
