"""Sql: read from a SQLite file with the statement that another node wrote. Whatever that says, it cannot write."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.flows import Flow, ask
from engine.program.code import OnError, as_text, blamed, written_code
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.parameters import Number, Parameter
from engine.records import RunSql, Step


@dataclass(frozen=True, slots=True)
class Sql(Layer):
    """At most `rows` rows as lines, the names of columns first; one value alone where there is but one.

    The statement is the last input. `on_error: text` gives the error as the output instead of failing.
    """

    database: str
    output: str = "rows"
    rows: int = 10
    on_error: OnError = "fail"

    kind: ClassVar[str] = "sql"

    @property
    def summary(self) -> str:
        return f"{self.database}, {self.rows} row{'s' * (self.rows != 1)}"

    @property
    def outside(self) -> tuple[Outside, ...]:
        return (Outside("database", self.database),)

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """How many rows are shown."""
        return {"rows": Number(self.rows, 1, 200, whole=True)}

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One statement."""
        statement = written_code(list(inputs.values())[-1]) or "-- nothing was written"
        completion = yield from ask(RunSql(self.database, statement, self.rows))
        if completion.text is None:
            told = {self.output: f"error: {completion.error}"}
            return LayerResult(told) if self.on_error == "text" else LayerResult(error=completion.error)
        return LayerResult({self.output: _table(json.loads(completion.text)["value"])})

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call of a model."""
        return Cost()

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the rows is said of the statement that chose them."""
        yield from ()
        return blamed(step, "The query", said, wanted)


def _table(found: Mapping[str, list[object]]) -> str:
    rows = [[as_text(value) for value in row] for row in found["rows"] if isinstance(row, list)]
    if not rows:
        return "no rows"
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0]
    lines = [" | ".join(map(str, found["columns"])), *(" | ".join(row) for row in rows)]
    return "\n".join(lines if found["complete"] else [*lines, "…"])
