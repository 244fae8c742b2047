"""Probing: how likely the accepted answers of some train rows are with an edit, and without each sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.flows import Flow, together
from engine.optim.edits.operators import OPERATORS, Edit, Target
from engine.optim.history import History
from engine.optim.screening import measured
from engine.records import Example


@dataclass(frozen=True, slots=True)
class Tried:
    """An edit and the loss of the program with it on the probe."""

    edit: Edit
    loss: float


class Probe:
    """Train rows on which the edits of one text are measured; there may be none."""

    def __init__(self, history: History, target: Target, rows: Sequence[Example]) -> None:
        self._history, self._target = history, target
        self.rows = rows

    def attribution(self, places: Sequence[int]) -> Flow[tuple[float, dict[int, Tried]]]:
        """The loss as it is, and that without the sentence at each place. Nothing where there are no rows."""
        if not self.rows:
            return math.inf, {}
        edits = [OPERATORS["delete_sentence"].edit(self._target, place) for place in places]
        base, *losses = yield from together(
            [self._loss({}), *(self._loss({one.parameter: one.value}) for one in edits)]
        )
        return base, {place: Tried(edit, loss) for place, edit, loss in zip(places, edits, losses, strict=True)}

    def tried(self, edits: Sequence[Edit]) -> Flow[list[Tried]]:
        """Edits with their losses."""
        losses = yield from together([self._loss({edit.parameter: edit.value}) for edit in edits])
        return [Tried(edit, loss) for edit, loss in zip(edits, losses, strict=True)]

    def _loss(self, changes: Mapping[str, Any]) -> Flow[float]:
        history = self._history
        program = history.program.replace(changes)
        return (yield from measured(program, self.rows, history.objective, history.calibrates)).loss
