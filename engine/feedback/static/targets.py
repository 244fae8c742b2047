"""Right answers that the program cannot give, or that its metric does not take for right."""

from collections.abc import Iterator, Sequence

from engine.feedback.static.finding import Finding, Severity, cut, share
from engine.feedback.static.places import answerers
from engine.feedback.static.predicting import can_give, field_of, options
from engine.feedback.static.subject import Subject
from engine.program.layers import Predict, Refine
from engine.program.typed.fields import Field
from engine.records import Example, Prediction
from engine.tasks.metrics import Metric

Writer = tuple[Predict, Field]

_MOST_SCORED = 5_000  # choices times answers: beyond that only an answer that is a choice counts


def foreign_targets(subject: Subject) -> Iterator[Finding]:
    """Rows none of whose answers can be given: those of no choice, or of another type than the output."""
    writers = _bound_writers(subject)
    rows = [row for row in subject.rows if row.accepted] if writers else []
    different = {row.accepted: row for row in rows}
    foreign = {accepted: row for accepted, row in different.items() if not _is_given(accepted, writers)}
    closed = [option for layer, field in writers for option in options(layer, field)]
    metric = subject.stock_metric
    if metric and len(foreign) * len(closed) <= _MOST_SCORED:
        foreign = {
            accepted: row
            for accepted, row in foreign.items()
            if not any(_score(metric, option, row) > 0 for option in closed)
        }
    lost = [row for row in rows if row.accepted in foreign]
    if lost:
        text = f"the program cannot give the answer of {share(len(lost), len(rows))}, such as {_shown(lost[0])}"
        severity: Severity = "error" if len(lost) == len(rows) else "warning"
        advice = "make the outputs and the targets agree"
        yield Finding(severity, "foreign_target", "data.target", text, advice, lost[0].origin)


def unmet_metrics(subject: Subject) -> Iterator[Finding]:
    """Metrics that need what the rows or the program do not have, or under which the targets themselves score low."""
    metric = subject.stock_metric
    rows = [row for row in subject.rows if row.accepted]
    if metric is None or not subject.rows:
        return
    if not rows:
        text = f"{metric.name} compares with a right answer, and no row has one"
        yield Finding("error", "unmet_metric", "metric", text, "name the row field that holds it: data.target")
    elif metric.name == "choice_likelihood" and not _gives_probabilities(subject):
        text = "choice_likelihood needs probabilities of closed choices, and the program gives none"
        yield Finding("error", "unmet_metric", "metric", text, "take exact_match, or give the last node choices")
    else:
        scores = [max(_score(metric, answer, row) for answer in row.accepted) for row in rows]
        lost = [row for row, score in zip(rows, scores, strict=True) if score < 1.0]
        if lost:
            text = f"{metric.name} gives the right answer of {share(len(lost), len(rows))} less than full marks"
            severity: Severity = "warning" if any(scores) else "error"
            advice = f"take another metric, or look at the target: {_shown(lost[0])}"
            yield Finding(severity, "unmet_metric", "metric", text, advice, lost[0].origin)


def _bound_writers(subject: Subject) -> list[Writer]:
    """What may write the program's answer, with its field; none where any of it is open."""
    found: list[Writer] = []
    for place, name in answerers(subject.program):
        if not isinstance(place.layer, Predict):
            return []
        field = field_of(place.layer, name)
        if field.is_text and not place.layer.choices:
            return []
        found.append((place.layer, field))
    return found


def _is_given(accepted: Sequence[str], writers: Sequence[Writer]) -> bool:
    return any(can_give(layer, field, answer) for layer, field in writers for answer in accepted)


def _gives_probabilities(subject: Subject) -> bool:
    return all(
        isinstance(place.layer, Predict)
        and bool(place.layer.choices)
        and place.layer.scores == "all"
        and not any(isinstance(layer, Refine) for layer in place.around)
        for place, _ in answerers(subject.program)
    )


def _score(metric: Metric, answer: str, row: Example) -> float:
    """What an answer scores that the program was sure of."""
    return metric.score(Prediction(answer, probabilities={answer: 1.0}), row)


def _shown(row: Example) -> str:
    return repr(cut(row.target or ""))
