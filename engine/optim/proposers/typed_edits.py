"""typed_edits: sentences of a text added, deleted, moved or said otherwise; rules, labels, formats; demos reordered.

A fixed set of operators (engine/optim/edits), each of which makes one small edit; what it leaves open a model fills in
under a grammar. Compare GrIPS (Prasad 2023), whose operators delete, swap, paraphrase and add phrases. Which operators
play a round is decided by UCB1 (Auer 2002, figure 1) over what their edits have won in this run. Which sentences are
deleted or said otherwise is decided by attribution: each is left out once, and those without which the accepted answers
of train are likelier come first. Rules and descriptions are of the labels that were missed most.

Deviations from GrIPS: all edits of a round are measured by likelihood on the same train rows, and what is added is
tried together, too; only what makes these rows likelier goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from numpy.random import Generator

from engine.flows import Flow, observed, together
from engine.optim.calibration import unseen
from engine.optim.edits.cases import Case, cases_of, names_one_example
from engine.optim.edits.choosing import playing as chosen
from engine.optim.edits.operators import OPERATORS, Edit, Operator, Target, targets
from engine.optim.edits.probing import Probe, Tried
from engine.optim.edits.slots import forms
from engine.optim.history import History, Proposal
from engine.optim.minibatch import failures, minibatch
from engine.optim.words.filling import filled
from engine.optim.words.texts import fits
from engine.optim.words.writing import recites
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.sentences import split
from engine.records import Completion, Example

T = TypeVar("T")

_PLAYING = 4  # operators a round
_CASES = 3
_TEXTS = 6  # written for an operator that has a slot
_PLACES = 3  # tried for one that has none
_SENTENCES = 6  # left out once each
_PROBE, _LEAST_PROBE = 64, 8
_PROPOSED = 3
_ADDED = 4  # put together at most

_BY_ATTRIBUTION = ("delete_sentence", "replace_sentence")
_ADDING = ("describe_label", "add_rule", "add_sentence")


class TypedEditsProposer:
    """Proposes up to three edits of one text of the incumbent, each measured on train."""

    name = "typed_edits"
    prior = 0.03

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(targets(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The edits that make the probe likelier, the best first; unmeasured ones where the allowance is too small."""
        possible = targets(history.program)
        target = possible[int(rng.integers(len(possible)))]
        playing = chosen(history, self.name, target, _PLAYING, rng)
        places = {operator.name: _shuffled(operator.places(target), rng) for operator in playing}
        writers = rng.spawn(len(playing))
        done: list[Completion] = []
        traces = yield from observed(minibatch(history, history.program), done)
        missed = [trace.example for trace in failures(traces)]
        cases = cases_of(target, history.train, missed, _CASES, rng)
        probe = Probe(history, target, _rows(history, target, playing, len(done)))
        base, left_out = yield from probe.attribution(_sentences(target, playing))
        worth = {place: base - tried.loss for place, tried in left_out.items()}
        written = yield from together(
            [
                _edits(history, target, operator, _worst_first(operator, places[operator.name], worth), cases, writer)
                for operator, writer in zip(playing, writers, strict=True)
            ]
        )
        edits = [edit for several in written for edit in several if _changes(target, edit)]
        if not probe.rows:
            return [_proposal(target, edit) for edit in edits[:_PROPOSED]]
        tried = [*left_out.values(), *(yield from probe.tried(edits))]
        better = sorted((one for one in tried if one.loss < base), key=lambda one: one.loss)
        better += yield from probe.tried(_combined(target, better))
        ranked = sorted((one for one in better if one.loss < base), key=lambda one: one.loss)
        return [_proposal(target, one.edit) for one in ranked[:_PROPOSED]]


# ── which operators, where, on which rows ────────────────────────────────────────────────────────


def _sentences(target: Target, playing: Sequence[Operator]) -> Sequence[int]:
    """The sentences to leave out once each: none where no operator asks which of them do harm."""
    asked = any(operator.name in _BY_ATTRIBUTION for operator in playing)
    return OPERATORS["delete_sentence"].places(target)[:_SENTENCES] if asked else ()


def _worst_first(operator: Operator, places: Sequence[int], worth: Mapping[int, float]) -> Sequence[int]:
    """Places in the order in which to try them: where sentences are judged, those do most harm that are best missed."""
    if operator.name not in _BY_ATTRIBUTION:
        return places
    return sorted(places, key=lambda place: -worth.get(place, 0.0))


def _rows(history: History, target: Target, playing: Sequence[Operator], spent: int) -> list[Example]:
    """Train rows to measure on, as many as the rest of the allowance pays for; those that prompts show least likely."""
    writing = sum(_TEXTS for operator in playing if operator.slot)
    edits = sum(_TEXTS if operator.slot else _PLACES for operator in playing)
    measures = 2 + edits + len(_sentences(target, playing))  # as it is, and what is added together
    room = history.allowance_calls - spent - writing
    rows = room // (measures * max(1, estimate(history.program, {}).calls))
    return unseen(history.program, history.drawn)[::-1][: min(_PROBE, rows)] if rows >= _LEAST_PROBE else []


# ── edits ────────────────────────────────────────────────────────────────────────────────────────


def _edits(
    history: History, target: Target, operator: Operator, places: Sequence[int], cases: Sequence[Case], rng: Generator
) -> Flow[list[Edit]]:
    """The edits of one operator; sentences are deleted by attribution alone."""
    if operator.slot is None:
        return [] if operator.name in _BY_ATTRIBUTION else [operator.edit(target, place) for place in places[:_PLACES]]
    asked = [
        (case, places[number % len(places)], form)
        for number, case in enumerate(cases)
        for form in forms(operator.slot, target, case, places[number % len(places)])
    ]
    samples = _TEXTS // max(1, len(asked))
    writers = rng.spawn(len(asked))
    texts = yield from together(
        [filled(history, form, samples, writer) for (*_, form), writer in zip(asked, writers, strict=True)]
    )
    about_labels = operator.slot in ("rule", "description")
    return [
        operator.edit(target, place, text, case.right if about_labels else "")
        for (case, place, _), found in zip(asked, texts, strict=True)
        for text in found
        if not recites(text, history.train) and not names_one_example(text, case)
    ]


def _combined(target: Target, better: Sequence[Tried]) -> list[Edit]:
    """What the best additions come to together, one of a kind and label; none where there is but one."""
    adding = [one.edit for one in better if one.edit.operator in _ADDING]
    kinds = {(edit.operator, edit.label): edit for edit in reversed(adding)}
    grown, used = target, 0
    for edit in [edit for edit in adding if edit is kinds[edit.operator, edit.label]][:_ADDED]:
        operator = OPERATORS[edit.operator]
        value = operator.made(grown, operator.places(grown)[0], edit.filling)
        if isinstance(value, str) and fits(grown.text, value):
            grown, used = replace(grown, text=replace(grown.text, value=value)), used + 1
    return [Edit("several", target.name, grown.text.value)] if used > 1 else []


def _changes(target: Target, edit: Edit) -> bool:
    """Whether an edit makes something else of its parameter that it can take."""
    if not isinstance(edit.value, str):
        return edit.value != target.demos
    said = {sentence.words for sentence in target.sentences}
    return fits(target.text, edit.value) and edit.filling not in said


def _proposal(target: Target, edit: Edit) -> Proposal:
    return Proposal({edit.parameter: edit.value}, f"{edit.parameter}: {edit.operator}{_difference(target, edit)}")


def _difference(target: Target, edit: Edit) -> str:
    """What an edit of the text brings in, takes out or puts first."""
    if not isinstance(edit.value, str):
        return ""
    old, new = [one.words for one in target.sentences], [one.words for one in split(edit.value)]
    come = " ".join(one for one in new if one not in old)
    gone = " ".join(one for one in old if one not in new)
    return f": {come}" if come else f": without {gone}" if gone else f": first {new[0]}"


def _shuffled(items: Sequence[T], rng: Generator) -> list[T]:
    return [items[int(index)] for index in rng.permutation(len(items))]
