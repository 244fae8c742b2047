"""The forward pass: a program over examples, each execution leaving a scored trace.

`forward` is a flow and does no I/O; `bind` gives a program a runtime, so that it can be called on one example.

Examples are run side by side, but one after another where the program carries state across them: `unrolled` is what
the pass through a recurrent network is (backpropagation through time is not done; a trace is blamed for itself alone).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.flows import Flow, keep, together
from engine.inference.runtime import Runtime
from engine.program.event import Event
from engine.program.graph import Program
from engine.program.layer import Node, perform
from engine.program.recurrence import carries_state, remembered
from engine.records import Example, Prediction, Step, Trace
from engine.store.keys import canonical, digest
from engine.tasks.metrics import Metric


def forward(program: Program, examples: Sequence[Example], metric: Metric | None = None) -> Flow[list[Trace]]:
    """Run a program on every example. Traces come in the order of the examples and are stored.

    Without a metric their score is NaN. A program that carries state starts from the state it was given with, and its
    memories are never told a score or a right answer.
    """
    if carries_state(program):
        return (yield from unrolled(program, examples, metric))[0]
    fingerprint = program.fingerprint
    return (yield from together([_kept(program, fingerprint, example, metric) for example in examples]))


def unrolled(
    program: Program, examples: Sequence[Example], metric: Metric | None = None, reveal: bool = False
) -> Flow[tuple[list[Trace], Program]]:
    """Run a program on one example after another, its memories being written after each; the program at the end.

    A memory is written from an example's inputs and the program's own answer. With `reveal` it is also told the score
    and the right answer: do so only with examples whose answers may be known, such as those of train, never with those
    that a figure is to be made of. An execution that failed leaves no note.

    Traces carry the fingerprint of the program as given, whatever its memories have come to hold; what they were
    written stands in the trace as a last step of its own.
    """
    fingerprint = program.fingerprint
    traces = []
    for example in examples:
        trace = yield from _traced(program, fingerprint, example, metric)
        if trace.prediction.error is None:
            program, steps = yield from remembered(program, _event(trace, reveal))
            trace = replace(trace, steps=(*trace.steps, *steps))
        yield from keep(trace)
        traces.append(trace)
    return traces, program


def reached(program: Program, inputs: Mapping[str, str]) -> Flow[dict[str, str] | None]:
    """What the program's output node would read, the nodes before it having done their work; None where one failed."""
    values, steps = yield from _executed(program.nodes[: program.nodes.index(program.output_node)], inputs)
    if any(step.error is not None for step in steps):
        return None
    return {name: values[reference] for name, reference in program.output_node.sources.items()}


def example_from(inputs: Mapping[str, str]) -> Example:
    """Inputs that came without an answer, as an example named by its content."""
    return Example(digest(canonical(dict(inputs))), inputs)


def bind(program: Program, runtime: Runtime) -> Program:
    """The same program, callable: `bind(program, runtime)(question="…")` gives a `Prediction`."""

    def runner(called: Program, inputs: Mapping[str, str]) -> Prediction:
        return runtime.run(forward(called, [example_from(inputs)]), run="run")[0].prediction

    return program.bound(runner)


def _event(trace: Trace, reveal: bool) -> Event:
    event = Event(trace.example.inputs, trace.prediction.text)
    score = None if math.isnan(trace.score) else trace.score
    return replace(event, score=score, target=trace.example.target) if reveal else event


def _kept(program: Program, fingerprint: str, example: Example, metric: Metric | None) -> Flow[Trace]:
    trace = yield from _traced(program, fingerprint, example, metric)
    yield from keep(trace)
    return trace


def _traced(program: Program, fingerprint: str, example: Example, metric: Metric | None) -> Flow[Trace]:
    prediction, steps = yield from _execute(program, example.inputs)
    score = metric.score(prediction, example) if metric else math.nan
    return Trace(fingerprint, example, steps, prediction, score)


def _execute(program: Program, inputs: Mapping[str, str]) -> Flow[tuple[Prediction, tuple[Step, ...]]]:
    """Run a program on one set of inputs. A node that fails ends the execution with its error."""
    values, steps = yield from _executed(program.nodes, inputs)
    failed = steps[-1]
    if failed.error is not None:
        return Prediction("", error=f"{failed.node}: {failed.error}"), steps
    last = next(step for step in steps if step.node == program.output_node.name)
    outputs = {name: text for name, text in values.items() if "." in name}
    return Prediction(values[program.output], outputs, last.probabilities), steps


def _executed(nodes: Sequence[Node], inputs: Mapping[str, str]) -> Flow[tuple[dict[str, str], tuple[Step, ...]]]:
    """The values by reference after nodes have run one after another, and their steps; one that fails is the last."""
    values = dict(inputs)
    steps: list[Step] = []
    for node in nodes:
        given = {name: values[reference] for name, reference in node.sources.items()}
        step = yield from perform(node.name, node.layer, given)
        steps.append(step)
        if step.error is not None:
            break
        values |= {f"{node.name}.{field}": text for field, text in step.outputs.items()}
    return values, tuple(steps)
