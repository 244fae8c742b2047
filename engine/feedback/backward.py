"""Backward: from the loss of failed executions to a textual gradient for every text parameter.

The DAG is walked in reverse, once per trace (TextGrad; Yuksekgonul 2024, section 3). The gradient of the program's
output is the loss in words. At each node the gradient of its output, which is what its consumers said about it, makes
two kinds of critique: one of the node's instruction, and one of each input that another node wrote, which becomes part
of that node's output gradient. A node that no failure reaches is left in peace. Critiques of one parameter are
gathered into one `Feedback`, in the order of the traces.

Deviation: critiques are single sentences, decoded under a grammar, so that a very small model can write them; right
executions give none.
"""

from collections.abc import Mapping, Sequence

from engine.flows import Flow, ask, together
from engine.program.grammar import prose
from engine.program.graph import Program
from engine.program.layer import Node
from engine.program.parameters import Text
from engine.program.prompt import label
from engine.records import Chat, Feedback, Generate, Message, Step, Trace

ONE_SENTENCE = prose(240)
_CRITIQUE_TOKENS = 56
_MAX_CRITIQUES = 6

Gradients = dict[str, list[str]]


def backward(program: Program, traces: Sequence[Trace]) -> Flow[list[Feedback]]:
    """One textual gradient per text parameter that a failed trace has something to say about, in program order."""
    failed = [trace for trace in traces if trace.score < 1.0 and trace.steps]
    walked = yield from together([_walk(program, trace) for trace in failed])
    feedback: list[Feedback] = []
    for name, parameter in program.parameters.items():
        if not isinstance(parameter, Text):
            continue
        critiques: dict[str, str] = {}
        for trace, gradients in zip(failed, walked, strict=True):
            for text in gradients.get(name, []):
                critiques.setdefault(text, trace.example.id)
        kept = list(critiques.items())[:_MAX_CRITIQUES]
        if kept:
            feedback.append(Feedback(name, "\n".join(f"- {text}" for text, _ in kept), tuple(id for _, id in kept)))
    return feedback


def _walk(program: Program, trace: Trace) -> Flow[Gradients]:
    """Gradients of one trace: by parameter name for texts, by reference for outputs."""
    gradients: Gradients = {program.output: [loss_in_words(trace)]}
    steps = {step.node: step for step in trace.steps}
    for node in reversed(program.nodes):
        step = steps.get(node.name)
        if step is None:
            continue
        said = [text for field in node.layer.outputs for text in gradients.get(f"{node.name}.{field}", [])]
        if step.error:
            said.append(f"The step failed: {step.error}.")
        if not said:
            continue
        targets = _targets(node)
        answers = yield from together([_critique(node, step, said, name, what) for name, what in targets.items()])
        for name, answer in zip(targets, answers, strict=True):
            if answer:
                gradients.setdefault(name, []).append(answer)
    return gradients


def loss_in_words(trace: Trace) -> str:
    """What was wrong with the program's answer."""
    expected = trace.example.target or "another answer"
    if trace.prediction.error:
        return f'There was no answer ({trace.prediction.error}); "{expected}" was expected.'
    return f'The answer was "{trace.prediction.text[:200]}", but "{expected[:200]}" is right.'


def _targets(node: Node) -> Mapping[str, str]:
    """What a node's output gradient is passed on to: its text parameters, and the inputs that another node wrote."""
    texts = {f"{node.name}.{name}": name for name, value in node.parameters().items() if isinstance(value, Text)}
    written = {reference: label(name) for name, reference in node.sources.items() if "." in reference}
    return {**texts, **written}


def _critique(node: Node, step: Step, said: Sequence[str], target: str, what: str) -> Flow[str]:
    """One sentence on how `target` should change, given what was said about the node's output; empty if none came."""
    instruction = node.parameters().get("instruction")
    lines = [f"Instruction: {instruction.value}" if isinstance(instruction, Text) else ""]
    lines += [f"{label(name)}: {text[:600]}" for name, text in step.inputs.items()]
    lines += [f"{label(name)}: {text[:300]}" for name, text in step.outputs.items()]
    lines += [f"Mistake: {text}" for text in said]
    lines.append(f"In one sentence, say how the {what.lower()} should change so that this mistake does not happen.")
    turns = (
        Message("system", "You give short, concrete advice on how to improve instructions."),
        Message("user", "\n".join(line for line in lines if line)),
    )
    completion = yield from ask(
        Generate(Chat(turns), _CRITIQUE_TOKENS, stop=("\n",), grammar=ONE_SENTENCE, role="optimizer")
    )
    return (completion.text or "").strip()
