"""Variants: the values of one text that a run has tried with all else equal, and how good each was.

A candidate is compared where it is the incumbent but for that text and the bias that was fitted to it: with other
demonstrations beside them, the scores of two texts would not say which text is better.
"""

from dataclasses import dataclass

from engine.errors import ContentError
from engine.optim.calibration import biased
from engine.optim.history import Candidate, History
from engine.program.graph import Program
from engine.statistics import mean


@dataclass(frozen=True, slots=True)
class Variant:
    """A text, and the mean value on dev that the incumbent would have with it, as far as can be told."""

    text: str
    value: float


def variants(history: History, name: str) -> list[Variant]:
    """The texts that the incumbent has been tried with in the place `name`, each once, the worst first.

    One that has seen a part of dev is worth what the incumbent is, and by how much it was better on that part. One that
    never raced, because of its loss on train, is worth no more than the worst of those that raced with no greater loss;
    where there are none, nothing can be said of it and it is left out.
    """
    alike = alike_but_for(history, history.incumbent.program, name)
    values = {text: _value(history, one) for text, one in alike.items() if one.traces}
    bounds = {text: _bound(one, alike, values) for text, one in alike.items() if not one.traces}
    values |= {text: value for text, value in bounds.items() if value is not None}
    return sorted((Variant(text, value) for text, value in values.items()), key=lambda variant: variant.value)


def alike_but_for(history: History, program: Program, name: str) -> dict[str, Candidate]:
    """Candidates that are `program` but for the text `name` and the fitted bias, by that text, in their order.

    Of several with one text it is the one that has seen most of dev, the first of equals.
    """
    found: dict[str, Candidate] = {}
    for one in history.candidates:
        if _alike(one.program, program, name):
            text = str(one.program.parameters[name].value)
            if text not in found or len(one.traces) > len(found[text].traces):
                found[text] = one
    return found


def _alike(one: Program, other: Program, name: str) -> bool:
    mine, theirs = one.parameters, other.parameters
    if mine.keys() != theirs.keys():
        return False
    changed = {key: value.value for key, value in mine.items() if value != theirs[key]}
    if not changed.keys() <= {name, *biased(other)}:
        return False
    try:
        return other.replace(changed).fingerprint == one.fingerprint
    except ContentError:  # a bias for other choices
        return False


def _value(history: History, one: Candidate) -> float:
    """The incumbent's value on dev, and by how much a candidate was better on the rows that both have seen."""
    objective, incumbent = history.objective, history.incumbent
    theirs = {trace.example.id: objective.value(trace) for trace in incumbent.traces}
    gains = [objective.value(trace) - theirs[trace.example.id] for trace in one.traces if trace.example.id in theirs]
    return history.value(incumbent) + mean(gains)


def _bound(one: Candidate, alike: dict[str, Candidate], values: dict[str, float]) -> float | None:
    """The least value of those that raced with no greater loss on train."""
    losses = {text: alike[text].train_loss for text in values}
    return min(
        (values[text] for text, loss in losses.items() if loss is not None and loss <= (one.train_loss or 0.0)),
        default=None,
    )
