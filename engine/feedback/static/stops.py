"""Stop texts that stand in what ought to be written, so that the reply ends too early."""

from collections.abc import Iterator

from engine.feedback.static.finding import Finding, cut, share
from engine.feedback.static.places import answerers, is_vital, predicts
from engine.feedback.static.predicting import options, request_of
from engine.feedback.static.subject import Subject
from engine.program.layers import Predict
from engine.program.places import Place
from engine.program.prompt import label
from engine.records import Generate

_ELSE = "choose a stop that stands in no answer"


def early_stops(subject: Subject) -> Iterator[Finding]:
    """Stops between two fields, in a choice, in demonstrations, or in the targets of train."""
    answering = {place.name for place, _ in answerers(subject.program)}
    for place, layer in predicts(subject.program):
        rows = subject.train if place.name in answering else ()
        for stop in _stops(place, layer):
            name = f"{place.name}.{'stop' if layer.stop else 'style'}"
            ends = f"{stop!r} ends the reply" if layer.stop else f"in plain style {stop!r} ends the reply"
            if between := next((other for other in layer.outputs[1:] if stop in f"\n{label(other)}:"), None):
                text = f"{ends} before {between} is written, so that every reply fails"
                advice = "drop it: each field has a line of its own"
                yield Finding("error" if is_vital(place) else "warning", "stop", name, text, advice)
                continue
            if lost := [option for field in layer.fields for option in options(layer, field) if stop in option]:
                text = f"{ends}, so that {cut(lost[0])!r} can never be written"
                yield Finding("warning", "stop", name, text, _ELSE)
            shown = [demo for demo in layer.demos if any(stop in text.strip() for text in demo.outputs.values())]
            if shown:
                text = f"{ends}, and stands in the answer of {share(len(shown), len(layer.demos), 'demonstration')}"
                yield Finding("warning", "stop", name, text, _ELSE)
            if ended := [row for row in rows if stop in (row.target or "").strip()]:
                text = f"{ends}, and stands in the target of {share(len(ended), len(rows), 'train row')}"
                yield Finding("warning", "stop", name, text, _ELSE, ended[0].origin)


def idle_stops(subject: Subject) -> Iterator[Finding]:
    """Stops of a layer that writes nothing: its answer is chosen."""
    for place, layer in predicts(subject.program):
        if layer.choices and layer.stop:
            text = "stop has no meaning with closed choices, of which none is written"
            yield Finding("note", "idle_setting", f"{place.name}.stop", text, "drop it")


def _stops(place: Place, layer: Predict) -> tuple[str, ...]:
    """Where the reply ends, as it is asked for: the default ones too."""
    request = request_of(layer, (), dict.fromkeys(place.sources, ""))
    return request.stop if isinstance(request, Generate) else ()
