"""Merging: what two candidates have each learnt, in one program (GEPA's system-aware merge; Agrawal 2025, merge).

Two candidates with a common ancestor are merged weight by weight: where one of them differs from the ancestor its value
is taken, where both do that of the better one. Demonstrations, styles and other settings count as much as texts, and no
model is asked for anything.

Deviation: the merged program is measured like any other proposal, not first on rows on which the two differ. A bias
that the run fits is fitted to the merged program anew, so that it counts for nothing here.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from engine.optim.calibration import biased
from engine.optim.history import Candidate, History, Proposal
from engine.program.graph import Program


def merges(history: History, candidates: Sequence[Candidate]) -> list[Proposal]:
    """Every merge of two of some candidates that gives a program which the run has not had, in their order."""
    had = [_weights(history, one.program) for one in history.candidates]
    found = []
    for first, second in itertools.combinations(candidates, 2):
        better, other = sorted((first, second), key=lambda one: (history.objective.rank(one.traces), one.number))
        edits = merged(history, better, other)
        whole = {**_weights(history, better.program), **edits}
        if edits and whole not in had:
            had.append(whole)
            found.append(Proposal(edits, _note(better, other, edits), better))
    return found


def merged(history: History, better: Candidate, other: Candidate) -> dict[str, Any]:
    """What the better of two takes over from the other; nothing where they are not fit to be merged.

    They are where neither comes from the other and their nearest common ancestor is no better than either.
    """
    ancestor = _common_ancestor(history, better, other)
    if ancestor in (better, other) or history.value(ancestor) > history.value(other):
        return {}
    was, one, two = (_weights(history, candidate.program) for candidate in (ancestor, better, other))
    if not was.keys() == one.keys() == two.keys():
        return {}
    changed, others = ({name for name in was if weights[name] != was[name]} for weights in (one, two))
    return {name: two[name] for name in one if name in others - changed}


def lineage(history: History, candidate: Candidate) -> list[Candidate]:
    """A candidate, the one it was made from, and so on, down to the program as given."""
    found = [candidate]
    while found[-1].number:
        found.append(history.candidates[found[-1].parent])
    return found


def _common_ancestor(history: History, one: Candidate, other: Candidate) -> Candidate:
    numbers = {candidate.number for candidate in lineage(history, one)}
    return next(candidate for candidate in lineage(history, other) if candidate.number in numbers)


def _weights(history: History, program: Program) -> dict[str, Any]:
    """The values of the parameters that a merge decides on."""
    fitted = biased(program) if history.calibrates else {}
    return {name: parameter.value for name, parameter in program.parameters.items() if name not in fitted}


def _note(better: Candidate, other: Candidate, edits: Mapping[str, Any]) -> str:
    return f"merge of {better.number} with {', '.join(edits)} of {other.number}"
