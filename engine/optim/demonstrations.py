"""Demonstrations: what the proposers that show solved examples have in common.

A place takes demonstrations wherever a layer has such a parameter, parts of other layers too (`answer.of.demos`). What
can be shown there is labelled, a train row with its target, where the place gives the program's answer from program
inputs alone; and it is bootstrapped, what the place read and wrote in an execution that scored full marks, anywhere
(Khattab 2023).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.random import Generator

from engine.errors import ContentError
from engine.flows import Flow
from engine.optim.history import History
from engine.optim.screening import showable
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.layer import Node
from engine.program.parameters import Demo, Demos
from engine.program.places import Place, places
from engine.program.pool import labelled
from engine.records import Example, Trace

T = TypeVar("T")

_MOST_CHARS = 4000  # of a set: a thousand tokens, beside which a row takes three to five times as long as alone


@dataclass(frozen=True, slots=True)
class Solved:
    """An example that can be shown: its answer, and a demo for each place, by the name of the parameter."""

    answer: str
    demos: Mapping[str, Demo]


def shown(program: Program) -> list[Place]:
    """The places that take demonstrations."""
    return [place for place in places(program) if isinstance(place.parameters().get("demos"), Demos)]


def takes_labelled(place: Place) -> bool:
    """Whether a row's target is what a place should give for the row."""
    return place.answers and place.direct and len(place.layer.outputs) == 1


def needs_executions(program: Program) -> bool:
    """Whether there is a place that labels say nothing of."""
    return not all(map(takes_labelled, shown(program)))


def from_targets(program: Program, examples: Sequence[Example]) -> list[Solved]:
    """Examples as labelled demos, without those that can be shown nowhere."""
    found = [Solved(example.target or "", _labelled(program, example)) for example in examples]
    return [one for one in found if one.demos]


def from_traces(program: Program, traces: Sequence[Trace]) -> list[Solved]:
    """Executions that scored full marks as bootstrapped demos of the places that took part in them."""
    found = [Solved(trace.prediction.text, _bootstrapped(program, trace)) for trace in traces]
    return [one for one in found if one.demos]


def from_both(history: History, calls: int) -> Flow[list[Solved]]:
    """What train has to show: labelled demos, and bootstrapped ones for other places, from at most so many calls."""
    program, rows = history.program, showable(history.train)
    solved = from_targets(program, rows)
    if not needs_executions(program):
        return solved
    traces = yield from history.objective.run(program, rows[: calls // max(1, estimate(program, {}).calls)])
    found: dict[str, Solved] = {row.id: Solved(row.target or "", _labelled(program, row)) for row in rows}
    for trace in traces:
        labels = found[trace.example.id]
        found[trace.example.id] = Solved(labels.answer, {**_bootstrapped(program, trace), **labels.demos})
    return [one for one in found.values() if one.demos]


def drawn(program: Program, solved: Sequence[Solved], size: int, rng: Generator) -> dict[str, Any]:
    """At most `size` examples in random order, as edits; balanced over the answers as far as they go."""
    queues: dict[str, list[Solved]] = {}
    for index in rng.permutation(len(solved)):
        queues.setdefault(solved[int(index)].answer, []).append(solved[int(index)])
    answers = sorted(queues)
    taken: list[Solved] = []
    while len(taken) < size and any(queues.values()):
        for index in rng.permutation(len(answers)):
            queue = queues[answers[int(index)]]
            if queue and len(taken) < size:
                taken.append(queue.pop())
    return as_sets(program, [taken[int(index)] for index in rng.permutation(len(taken))])


def sized(program: Program, solved: Sequence[Solved], sizes: Sequence[int], rng: Generator) -> list[dict[str, Any]]:
    """A set of each of some sizes; where there are fewer examples than for any, one of all of them."""
    fitting = [size for size in sizes if size <= len(solved)] or [len(solved)]
    return [drawn(program, solved, size, rng) for size in fitting if solved]


def as_sets(program: Program, solved: Sequence[Solved]) -> dict[str, Any]:
    """The edits that show these examples in this order, the last left out where a prompt would become too long.

    A place for which an example has no demo does without it; a pool becomes a set.
    """
    parameters = program.parameters
    edits: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in solved for name in one.demos):
        edits[name] = _within(tuple(one.demos[name] for one in solved if name in one.demos))
        parameter = parameters[name]
        if isinstance(parameter, Demos) and parameter.nearest:
            edits[f"{name.removesuffix('demos')}nearest"] = 0
    return edits


def dealt(options: Sequence[T], rng: Generator) -> Iterator[T]:
    """Options without end, each once before any comes again, in random order."""
    while True:
        yield from (options[int(index)] for index in rng.permutation(len(options)))


def described(edits: Mapping[str, Any]) -> str:
    """What edits do, in a few words."""
    sets = [f"{len(value)} in {name}" for name, value in edits.items() if name.endswith(".demos")]
    others = [f"{name} = {value}" for name, value in edits.items() if not name.endswith(".demos")]
    return "; ".join([*([f"demonstrations: {', '.join(sets)}"] if sets else []), *others])


def _labelled(program: Program, example: Example) -> dict[str, Demo]:
    found = {
        f"{place.name}.demos": labelled(Node(place.name, place.layer, place.node.sources), example)
        for place in shown(program)
        if takes_labelled(place)
    }
    return {name: demo for name, demo in found.items() if demo is not None}


def _bootstrapped(program: Program, trace: Trace) -> dict[str, Demo]:
    """What each place did in an execution, by the name of its parameter; nothing of one that was not right."""
    if trace.score < 1.0:
        return {}
    found = {f"{place.name}.demos": _done(place, trace) for place in shown(program)}
    return {name: demo for name, demo in found.items() if demo is not None}


def _done(place: Place, trace: Trace) -> Demo | None:
    """What a place did first, with the program's answer where it should give that."""
    main, parameter = place.layer.outputs[-1], place.parameters()["demos"]
    assert isinstance(parameter, Demos)  # shown() has seen to it
    for step in place.steps(trace.steps):
        text = step.outputs.get(main, "")
        if step.error is None and text.strip() and (not place.answers or text == trace.prediction.text):
            try:
                return parameter.check([Demo(step.inputs, step.outputs)])[0]
            except ContentError:
                return None
    return None


def _within(demos: tuple[Demo, ...]) -> tuple[Demo, ...]:
    """As many of the first as have together at most `_MOST_CHARS`, but one at least."""
    length = 0
    for number, demo in enumerate(demos):
        length += sum(map(len, (*demo.inputs.values(), *demo.outputs.values())))
        if number and length > _MOST_CHARS:
            return demos[:number]
    return demos
