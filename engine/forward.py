"""The forward pass: a program over examples, each execution leaving a scored trace.

`forward` is a flow and does no I/O; `bind` gives a program a runtime, so that it can be called on one example.
"""

import math
from collections.abc import Mapping, Sequence

from engine.flows import Flow, keep, together
from engine.inference.runtime import Runtime
from engine.program.graph import Program
from engine.program.layer import perform
from engine.records import Example, Prediction, Step, Trace
from engine.store.keys import canonical, digest
from engine.tasks.metrics import Metric


def forward(program: Program, examples: Sequence[Example], metric: Metric | None = None) -> Flow[list[Trace]]:
    """Run a program on every example at once. Traces come in the order of the examples and are stored.

    Without a metric their score is NaN.
    """
    fingerprint = program.fingerprint
    traces = yield from together([_traced(program, fingerprint, example, metric) for example in examples])
    return traces


def example_from(inputs: Mapping[str, str]) -> Example:
    """Inputs that came without an answer, as an example named by its content."""
    return Example(digest(canonical(dict(inputs))), inputs)


def bind(program: Program, runtime: Runtime) -> Program:
    """The same program, callable: `bind(program, runtime)(question="…")` gives a `Prediction`."""

    def runner(called: Program, inputs: Mapping[str, str]) -> Prediction:
        return runtime.run(forward(called, [example_from(inputs)]), run="run")[0].prediction

    return program.bound(runner)


def _traced(program: Program, fingerprint: str, example: Example, metric: Metric | None) -> Flow[Trace]:
    prediction, steps = yield from _execute(program, example.inputs)
    score = metric.score(prediction, example) if metric else math.nan
    trace = Trace(fingerprint, example, steps, prediction, score)
    yield from keep(trace)
    return trace


def _execute(program: Program, inputs: Mapping[str, str]) -> Flow[tuple[Prediction, tuple[Step, ...]]]:
    """Run a program on one set of inputs. A node that fails ends the execution with its error."""
    values = dict(inputs)
    steps: list[Step] = []
    for node in program.nodes:
        given = {name: values[reference] for name, reference in node.sources.items()}
        step = yield from perform(node.name, node.layer, given)
        steps.append(step)
        if step.error is not None:
            return Prediction("", error=f"{node.name}: {step.error}"), tuple(steps)
        values |= {f"{node.name}.{field}": text for field, text in step.outputs.items()}
    last = next(step for step in steps if step.node == program.output_node.name)
    outputs = {name: text for name, text in values.items() if "." in name}
    return Prediction(values[program.output], outputs, last.probabilities), tuple(steps)
