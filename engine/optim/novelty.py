"""Novelty: which edits make a program that no candidate of the run has been, whatever bias was fitted to it then."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from engine.optim.history import History
from engine.program.graph import Program
from engine.program.parameters import Bias

Edits = TypeVar("Edits", bound=Mapping[str, Any])


def untried(history: History, edits: Sequence[Edits]) -> list[Edits]:
    """Those edits of the incumbent, in their order, each program once."""
    seen = {_unbiased(candidate.program) for candidate in history.candidates}
    new = []
    for edit in edits:
        program = _unbiased(history.program.replace(edit))
        if program not in seen:
            seen.add(program)
            new.append(edit)
    return new


def _unbiased(program: Program) -> str:
    """A program's fingerprint without its biases."""
    return program.replace(
        {name: () for name, value in program.parameters.items() if isinstance(value, Bias)}
    ).fingerprint
