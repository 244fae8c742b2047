"""Demonstrations that teach what cannot be answered, that repeat or contradict one another, or that give dev away."""

from collections.abc import Iterator, Mapping

from engine.feedback.static.finding import Finding, cut, share, some
from engine.feedback.static.places import predicts
from engine.feedback.static.subject import Subject
from engine.tasks.answers import normalized

Key = tuple[str, ...]


def foreign_demos(subject: Subject) -> Iterator[Finding]:
    """Demonstrations that show an answer which is none of the choices, to the letter."""
    for place, layer in predicts(subject.program):
        shown = [demo.outputs[layer.outputs[0]] for demo in layer.demos] if layer.choices else []
        foreign = list(dict.fromkeys(answer for answer in shown if answer not in layer.choices))
        if foreign:
            many = share(sum(answer in foreign for answer in shown), len(shown), "demonstration")
            text = f"what is no choice is the answer in {many}: {some(foreign)}"
            advice = f"write it as one of {some(layer.choices)}"
            yield Finding("warning", "foreign_demo", f"{place.name}.demos", text, advice)


def repeated_demos(subject: Subject) -> Iterator[Finding]:
    """The same demonstration twice, and the same inputs with different answers."""
    for place, layer in predicts(subject.program):
        answers: dict[Key, list[Key]] = {}
        for demo in layer.demos:
            inputs, outputs = _key(demo.inputs), _key(demo.outputs)
            answers.setdefault(inputs, []).append(outputs)
        again = [inputs for inputs, given in answers.items() if len(given) > 1]
        contrary = [inputs for inputs in again if len(set(answers[inputs])) > 1]
        name = f"{place.name}.demos"
        if contrary:
            given = dict.fromkeys(" ".join(outputs) for outputs in answers[contrary[0]])
            text = f'"{cut(contrary[0][0])}" is answered in different ways: {some(list(given))}'
            yield Finding("warning", "contrary_demos", name, text, "keep the one that is right")
        elif again:
            text = f'"{cut(again[0][0])}" is shown {len(answers[again[0]])} times'
            yield Finding("warning", "repeated_demo", name, text, "show it once")


def leaked_demos(subject: Subject) -> Iterator[Finding]:
    """Demonstrations that are rows of dev: a score on dev then says less than it seems to."""
    for place, layer in predicts(subject.program):
        if not layer.demos or not all(source in subject.program.inputs for source in place.sources.values()):
            continue
        shown = {_key(demo.inputs) for demo in layer.demos}
        judged = [
            row for row in subject.dev if _key({name: row.inputs[at] for name, at in place.sources.items()}) in shown
        ]
        if judged:
            text = f"they show the inputs of {share(len(judged), len(subject.dev), 'dev row')}"
            advice = "show rows of train alone"
            yield Finding("warning", "leaked_demo", f"{place.name}.demos", text, advice, judged[0].origin)


def _key(fields: Mapping[str, str]) -> Key:
    """What fields hold, without case and white space."""
    return tuple(normalized(text) for text in fields.values())
