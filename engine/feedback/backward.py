"""Backward: from the loss of failed executions to a textual gradient for every text parameter.

The DAG is walked in reverse, once per trace (TextGrad; Yuksekgonul 2024, section 3). The gradient of the program's
output is the loss in words. At each node the layer's own rule (`Layer.backward`) turns the gradient of its output,
which is what its consumers said about each of its fields, into gradients of its parameters and of each input that
another node wrote; the latter become part of that node's output gradient. A node that no failure reaches is left in
peace. What all traces say of one parameter, in whatever places it is used, becomes one `Feedback`. Right executions
give none.

Where judges looked at steps, the first one that they found wrong is to blame, and the walk begins there: what came of
it later says nothing about what came later (process supervision).
"""

from collections.abc import Sequence

from engine.feedback.aggregation import Critique, aggregated
from engine.feedback.remarks import remarks_on
from engine.flows import Flow, keep, together
from engine.program.graph import Program
from engine.program.parameters import Source, Text
from engine.records import Feedback, Judgement, Trace

Gradients = dict[str, list[str]]


def backward(program: Program, traces: Sequence[Trace], room_tokens: int = 256) -> Flow[list[Feedback]]:
    """One textual gradient per text parameter that a failed trace has something to say about, in program order.

    Each has at most `room_tokens` tokens, by the count of the model that writes feedback.
    """
    failed = [trace for trace in traces if trace.steps and (trace.score < 1.0 or found_wrong(trace))]
    walked = yield from together([_walk(program, trace) for trace in failed])
    for trace, gradients in zip(failed, walked, strict=True):
        yield from keep(*remarks_on(program, trace, gradients))
    critiques = {
        name: [
            Critique(trace.example.id, text)
            for trace, gradients in zip(failed, walked, strict=True)
            for text in gradients.get(name, ())
        ]
        for name, parameter in program.parameters.items()
        if isinstance(parameter, Text | Source)
    }
    return (yield from together([aggregated(name, said, room_tokens) for name, said in critiques.items() if said]))


def _walk(program: Program, trace: Trace) -> Flow[Gradients]:
    """Gradients of one trace: by parameter name for texts, by reference for outputs."""
    gradients = _seeds(program, trace)
    steps = {step.node: step for step in trace.steps}
    for node in reversed(program.nodes):
        step = steps.get(node.name)
        if step is None:
            continue
        said = {field: list(gradients.get(f"{node.name}.{field}", ())) for field in node.layer.outputs}
        if step.error:
            said[node.layer.outputs[-1]].append(f"The step failed: {step.error}.")
        if not any(said.values()):
            continue
        written = tuple(name for name, reference in node.sources.items() if "." in reference)
        found = yield from node.layer.backward_by_field(step, said, written)
        for name, texts in found.parameters.items():
            gradients.setdefault(f"{node.name}.{name}", []).extend(texts)
        for name, texts in found.inputs.items():
            gradients.setdefault(node.sources[name], []).extend(texts)
    return gradients


def _seeds(program: Program, trace: Trace) -> Gradients:
    """Where the walk begins, and with which words."""
    wrong = {judgement.node: judgement.said for judgement in reversed(found_wrong(trace))}
    blamed = next((node for node in program.nodes if node.name in wrong), None)
    if blamed is not None and blamed.name != program.output_node.name:
        return {f"{blamed.name}.{blamed.layer.outputs[-1]}": [wrong[blamed.name]]}
    words = [loss_in_words(trace)] if trace.score < 1.0 else []
    return {program.output: [*words, *wrong.values()]}


def found_wrong(trace: Trace) -> list[Judgement]:
    """The judgements that say no rather than yes."""
    return [judgement for judgement in trace.judgements if judgement.value < 0.5]


def loss_in_words(trace: Trace) -> str:
    """What was wrong with the program's answer."""
    expected = trace.example.target or "another answer"
    if trace.prediction.error:
        return f'There was no answer ({trace.prediction.error}); "{expected}" was expected.'
    return f'The answer was "{trace.prediction.text[:200]}", but "{expected[:200]}" is right.'
