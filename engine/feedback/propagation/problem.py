"""Trace propagation: one problem from a program, what it did and what was wrong with it (Trace; Cheng 2024).

Where a textual gradient asks about one parameter at a time, here a model reads the program as pseudo-code with the
values of its executions and what was said of them, and answers once for all parameters.

    #Code          the minimal sub-graph, one assignment for each node
    #Variables     what may be edited: limits and value
    #Execution     inputs, intermediate values, output, and what was said of it; of a failed one, then of others
    #Tried         earlier edits and how they fared

Deviations from OptoPrime: several executions stand in one problem; functions are described by their layer's settings;
there is no reasoning before the answer, which a very small model would not find its way back from; and the prompt is
fitted into a room of so many tokens, the least relevant left out first: earlier attempts, the ends of long values,
right executions, all failures but the first, values inside of composite layers, intermediate values that are not on the
shortest path to the output, then those that are, the farthest first, and what judges said.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.feedback.backward import loss_in_words
from engine.feedback.packing import Part, fitted
from engine.feedback.propagation.edits import limits
from engine.feedback.propagation.view import View
from engine.flows import Flow
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.parameters import Demos, Parameter
from engine.program.typed.json_values import compact
from engine.records import Chat, Message, Prompt, Trace

_SHORT_CHARS, _VALUE_CHARS, _INPUT_CHARS = 200, 600, 1200
_SAID_CHARS = 500

# How relevant a part is, from the least to the most.
_ATTEMPT, _LONG_VALUE, _RIGHT, _FAILURE, _INSIDE, _ASIDE, _ON_PATH, _REMARK = range(8)

_SYSTEM = (
    "You improve a program by changing its variables. #Code shows how its values are computed. #Variables shows what "
    "you may change. Each #Execution shows the values of one run and what was said of the result. Find out which "
    "variables are to blame for what is wrong, and change them."
)
_TASK = "\n\nGive new values to the variables that should change, as JSON: {variable: new value}."


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt of `tokens` tokens, and what an answer to it may edit: parameters by the names of their variables."""

    prompt: Prompt
    tokens: int
    parameters: Mapping[str, Parameter]


def propagated(
    program: Program,
    traces: Sequence[Trace],
    room_tokens: int,
    attempts: Sequence[str] = (),
    also: Collection[str] = (),
) -> Flow[Problem | None]:
    """The problem that the failed ones among some traces pose; None where there are none that an edit can reach.

    The first right trace stands beside them. `attempts` say what was tried before, the most telling first. `also` names
    parameters that are not edited by default.
    """
    view = View.of(program, traces, also)
    if not view.failed:
        return None
    first, *others = view.failed
    right = [trace for trace in traces if trace.score >= 1.0][:1]
    parts = [*_code(view), *_variables(view), *_first_execution(view, first)]
    for number, trace in enumerate([*others, *right], start=2):
        parts.append(Part(_execution(view, number, trace), _FAILURE if trace.score < 1.0 else _RIGHT))
    parts += [Part(f"\n\n#Tried: {attempt}", _ATTEMPT) for attempt in attempts]
    found = yield from fitted(parts, room_tokens, _render)
    named = {view.names.parameters[name]: parameter for name, parameter in view.parameters.items()}
    return Problem(found.prompt, found.tokens, named)


def _render(parts: Sequence[Part]) -> Prompt:
    return Chat((Message("system", _SYSTEM), Message("user", "".join(part.text for part in parts) + _TASK)))


def _code(view: View) -> Iterator[Part]:
    yield Part("#Code")
    for node in view.nodes:
        yield Part(f"\n{view.names.assignment(node, view.parameters)}")


def _variables(view: View) -> Iterator[Part]:
    yield Part("\n\n#Variables")
    for name, parameter in view.parameters.items():
        yield Part(f"\n{view.names.parameters[name]}: {limits(parameter)} = {compact(_plain(parameter))}")


def _first_execution(view: View, trace: Trace) -> Iterator[Part]:
    """The execution that stays, value by value: its inputs and its output at least in short."""
    end, path = view.end(trace), view.on_path(trace)
    yield Part(f"\n\n#Execution 1, score {trace.score:.2g}")
    for variable, text in view.inputs(trace).items():
        yield _long_value(variable, text)
    for place, (node, step) in enumerate(view.taken(trace)):
        relevance = (_ON_PATH if node.name in path else _ASIDE) + place / 1000  # of equals the nearer to the end
        for variable, text in view.outputs(node, step).items():
            value = _assigned(variable, text, _VALUE_CHARS)
            yield _long_value(variable, text) if node.name == end else Part(value, relevance)
        yield from (Part(f"\n#{line}", _INSIDE) for line in view.inner(node, step))
    yield Part(_feedback(trace))
    yield from (Part(remark, _REMARK) for remark in _remarks(trace))


def _execution(view: View, number: int, trace: Trace) -> str:
    """Another execution as one text."""
    values = view.inputs(trace)
    for node, step in view.taken(trace):
        values |= view.outputs(node, step)
    lines = [_assigned(variable, text, _SHORT_CHARS) for variable, text in values.items()]
    return "".join([f"\n\n#Execution {number}, score {trace.score:.2g}", *lines, _feedback(trace), *_remarks(trace)])


def _feedback(trace: Trace) -> str:
    """Whether the answer is right, and else what would have been."""
    said = "The answer is right." if trace.score >= 1.0 else loss_in_words(trace)
    return f"\n#Feedback: {one_line(said, _SAID_CHARS)}"


def _remarks(trace: Trace) -> list[str]:
    """What judges have against the answer or a step, a line each."""
    return [
        f"\n#Judge{f' of {one.node}' if one.node else ''}, {one.value:.2g}: {one_line(one.said, _SAID_CHARS)}"
        for one in trace.judgements
        if one.said
    ]


def _long_value(variable: str, text: str) -> Part:
    """A value that is shown in short where there is no room for more."""
    short = _assigned(variable, text, _SHORT_CHARS)
    return (
        Part(_assigned(variable, text, _INPUT_CHARS), _LONG_VALUE, short) if len(text) > _SHORT_CHARS else Part(short)
    )


def _assigned(variable: str, text: str, chars: int) -> str:
    return f"\n{variable} = {compact(text if len(text) <= chars else f'{text[:chars]}…')}"


def _plain(parameter: Parameter) -> Any:
    """A parameter's value as plain data."""
    return [demo.to_mapping() for demo in parameter.value] if isinstance(parameter, Demos) else parameter.value
