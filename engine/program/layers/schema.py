"""Schema: the tables of a SQLite file, for a prompt that is to end in a query."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.flows import Flow, ask
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, Outside
from engine.records import RunSql, Step


@dataclass(frozen=True, slots=True)
class Schema(Layer):
    """The CREATE statements of a database. Its inputs only say where in the program it stands."""

    database: str
    output: str = "tables"

    kind: ClassVar[str] = "schema"

    @property
    def summary(self) -> str:
        return self.database

    @property
    def outside(self) -> tuple[Outside, ...]:
        return (Outside("database", self.database),)

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One look."""
        completion = yield from ask(RunSql(self.database, ""))
        if completion.text is None:
            return LayerResult(error=completion.error)
        return LayerResult({self.output: json.loads(completion.text)["value"]})

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call of a model."""
        return Cost()

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """Nobody wrote it: nothing to change."""
        yield from ()
        return Gradients()
