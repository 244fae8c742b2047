"""Diagnosis: where a failed execution went wrong first and how, as far as its trace tells. No model is asked.

| kind | where | what tells failures of this kind apart |
|---|---|---|
| truncated, unparsed | the step whose reply was cut off, or could not be read | nothing; what was wrong with it |
| tool error | the tool, code or query that failed, also where it only said so and the answer is wrong | what it said |
| failed call | the step that failed in any other way, such as by a prompt that is too long | what it said |
| unsure, wrong label | the output node: the right choice, but not likely enough; another | it; expected → predicted |
| retrieval miss | the last step that searched, where no passage of any of them holds an accepted answer | nothing |
| wrong answer | the output node: open text | empty, too long (a right answer among more), other |

What holds first in this order is the diagnosis. Closed labels need not stand in a passage, so that with them nothing
counts as a miss. Of several searches the last is blamed, since those before it may only have led there. Steps of parts
are named behind their node: `answer.steps.plan`, `gate.of 1`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.layer import Layer
from engine.program.layers import Agent, Code, Parallel, Predict, Route, RunCode, Sequential, Sql, ToolCall
from engine.records import Step, Trace
from engine.tasks.answers import normalized

Kind = Literal[
    "wrong label",
    "unsure",
    "wrong answer",
    "unparsed",
    "truncated",
    "retrieval miss",
    "tool error",
    "failed call",
]

_LABEL_CHARS, _MESSAGE_CHARS = 60, 100
_UNPARSED, _TOLD = (
    "unparsed: ",
    "error: ",
)  # how layers write that a reply is none, and a failure that they give as text
_TRUNCATED = re.compile(r"the \w+ was truncated at \d+ tokens")
_QUOTED = re.compile(r"""(?<!\w)(['"]).*?\1(?!\w)""")
_NUMBER = re.compile(r"\d(?:[\d,.]*\d)?")


@dataclass(frozen=True, slots=True, order=True)
class Diagnosis:
    """Where an execution went wrong, the kind of failure, and what tells failures of one kind apart."""

    node: str
    kind: Kind
    label: str = ""


def has_failed(trace: Trace) -> bool:
    """Whether an execution gave no answer or one that scored less than 1; an unscored answer has not failed."""
    return trace.prediction.error is not None or trace.score < 1.0


def diagnose(program: Program, trace: Trace, cut: Collection[str] = ()) -> Diagnosis:
    """What went wrong in a failed execution of `program`.

    `cut` are keys of calls whose text ended at the most tokens it could have (`Store.cut_off`). Of open text a trace
    does not tell that, so that without them it passes for unparsed or another answer.
    """
    layers = {node.name: node.layer for node in program.nodes}
    places = [_Place(step.node, step, layers[step.node]) for step in trace.steps if step.node in layers]
    if trace.prediction.error is not None:
        failed = next((place for place in places if place.step.error is not None), None)
        return _of_error(failed, cut) if failed else _of_message(program, trace.prediction.error)
    told = next((found for place in places for found in _told(place)), None)
    if told:
        return told
    output = program.output_node
    if trace.prediction.probabilities is not None or _chooses(output.layer, trace.prediction.text):
        return _of_label(output.name, trace)
    searches = [place for whole in places for place in _within(whole) if place.searches]
    if searches and trace.example.accepted and not _found(searches, trace.example.accepted):
        return Diagnosis(searches[-1].name, "retrieval miss")
    wrote = next((place.step.calls for place in places if place.name == output.name), ())
    return _of_text(output.name, trace, any(key in cut for key in wrote))


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether one of some answers stands in a text as it is, apart from case and white space, and not within a word."""
    folded = normalized(text)
    return any(re.search(_alone(answer), folded) for answer in map(normalized, answers) if answer)


# ── places ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Place:
    """A step by its whole name, with its layer where it is a node's or a part's, and the layer around it."""

    name: str
    step: Step
    layer: Layer | None
    around: Layer | None = None

    @property
    def inner(self) -> "list[_Place]":
        parts = self.layer.parts if self.layer else {}
        return [
            _Place(f"{self.name}.{step.node}", step, parts.get(step.node.partition(" ")[0]), self.layer)
            for step in self.step.steps
        ]

    @property
    def runs(self) -> bool:
        """Whether a tool, code or a query is run here and no model is asked."""
        if self.layer is None:
            return isinstance(self.around, ToolCall)
        return isinstance(self.layer, Code | RunCode) or self._uses("tool", "database")

    @property
    def searches(self) -> bool:
        """Whether an index is searched here. Demonstrations and notes that were found are no passages."""
        if self.layer is None:
            return isinstance(self.around, Agent) and bool(self.around.index) and self.step.node.startswith("search ")
        return self._uses("index")

    def _uses(self, *kinds: str) -> bool:
        if self.layer is None or self.layer.parts or isinstance(self.layer, Agent | ToolCall):
            return False
        return any(need.kind in kinds for need in self.layer.outside)


def _within(place: _Place) -> Iterator[_Place]:
    """A place and all that lies in it, in the order of execution."""
    yield place
    for inner in place.inner:
        yield from _within(inner)


# ── what went wrong there ────────────────────────────────────────────────────────────────────────


def _of_error(place: _Place, cut: Collection[str]) -> Diagnosis:
    """A step that failed; where one of its own made it fail, that one."""
    message = place.step.error or ""
    for inner in place.inner:
        if inner.step.error and message.endswith(inner.step.error):
            return _of_error(inner, cut)
    return _of_words(place.name, message, place.runs, any(key in cut for key in place.step.calls))


def _of_message(program: Program, error: str) -> Diagnosis:
    """A failure that no step tells of; its message begins with the node, or else it is the output node's."""
    name, _, message = error.partition(": ")
    known = any(node.name == name for node in program.nodes)
    return _of_words(name if known else program.output_node.name, message if known else error)


def _of_words(name: str, message: str, runs: bool = False, cut: bool = False) -> Diagnosis:
    if runs:
        return Diagnosis(name, "tool error", _shape(message))
    if not message.startswith(_UNPARSED):
        return Diagnosis(name, "failed call", _shape(message))
    reason = message.removeprefix(_UNPARSED)
    if cut or _TRUNCATED.fullmatch(reason):
        return Diagnosis(name, "truncated")
    return Diagnosis(name, "unparsed", _shape(reason))


def _told(place: _Place) -> Iterator[Diagnosis]:
    """Failures that were given as text where the answer was made of it: by code, a query, or an agent's last tool."""
    if isinstance(place.layer, Sequential | Parallel | Route):
        for inner in place.inner:
            yield from _told(inner)
    last, text = place, ""
    if isinstance(place.layer, RunCode | Sql) and place.layer.on_error == "text":
        text = place.step.outputs.get(place.layer.output, "")
    if isinstance(place.layer, Agent):
        last = next((inner for inner in reversed(place.inner) if "observation" in inner.step.outputs), place)
        text = last.step.outputs.get("observation", "")
    if text.startswith(_TOLD):
        yield Diagnosis(last.name, "tool error", _shape(text.removeprefix(_TOLD)))


def _of_label(name: str, trace: Trace) -> Diagnosis:
    predicted = trace.prediction.text
    if normalized(predicted) in map(normalized, trace.example.accepted):
        return Diagnosis(name, "unsure", one_line(predicted, _LABEL_CHARS))
    pair = (one_line(text, _LABEL_CHARS) for text in (trace.example.target or "?", predicted))
    return Diagnosis(name, "wrong label", " → ".join(pair))


def _of_text(name: str, trace: Trace, cut: bool) -> Diagnosis:
    text, accepted = trace.prediction.text, trace.example.accepted
    if not text.strip():
        return Diagnosis(name, "wrong answer", "empty")
    if holds(text, accepted) and normalized(text) not in map(normalized, accepted):
        return Diagnosis(name, "wrong answer", "too long")
    return Diagnosis(name, "truncated") if cut else Diagnosis(name, "wrong answer", "other")


def _found(searches: Sequence[_Place], accepted: Sequence[str]) -> bool:
    passages = [passage for place in searches for passage in place.step.passages]
    return any(holds(f"{passage.title}\n{passage.text}", accepted) for passage in passages)


def _chooses(layer: Layer, text: str) -> bool:
    """Whether a text is a closed choice of a layer, or of the part of it that gives its main output."""
    if isinstance(layer, Predict):
        return text in layer.choices
    return any(_chooses(part, text) for part in layer.parts.values() if part.outputs[-1] == layer.outputs[-1])


def _shape(message: str) -> str:
    """A message without what differs between examples: texts in quotes and numbers."""
    return one_line(_NUMBER.sub("#", _QUOTED.sub("'…'", one_line(message, 4 * _MESSAGE_CHARS))), _MESSAGE_CHARS)


def _alone(answer: str) -> str:
    """A pattern of an answer with no word or number going on from it, in scripts that put spaces between words."""
    first, last = answer[0], answer[-1]
    left = r"(?<!\w)(?<!\d[.,])" if first.isdigit() else r"(?<!\w)" if first.upper() != first.lower() else ""
    right = r"(?!\w|[.,]\d)" if last.isdigit() else r"(?!\w)" if last.upper() != last.lower() else ""
    return f"{left}{re.escape(answer)}{right}"
