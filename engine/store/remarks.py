"""Remarks as rows: what feedback said about a trace, each thing once, and how it is read back."""

import math
from typing import Any

from engine.records import Remark
from engine.store.traces import example_of, trace_id_of

PUT_REMARK = (
    "INSERT INTO remarks (trace, node, kind, text, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (trace, node, kind, text) DO UPDATE SET value = excluded.value"
)
REMARKS = (
    "SELECT program, example, inputs, accepted, origin, node, kind, text, value "
    "FROM remarks JOIN traces ON traces.id = remarks.trace WHERE remarks.trace = ? ORDER BY remarks.number"
)


def remark_columns(remark: Remark, run: str) -> tuple[Any, ...]:
    """Values in the order of PUT_REMARK. A value that is no finite number is none."""
    value = remark.value if remark.value is not None and math.isfinite(remark.value) else None
    return (trace_id_of(run, remark.program, remark.example), remark.node, remark.kind, remark.text, value)


def remark_of(row: tuple[Any, ...]) -> Remark:
    """A remark from a row of REMARKS."""
    program, example, inputs, accepted, origin, node, kind, text, value = row
    return Remark(program, example_of(example, inputs, accepted, origin), node, kind, text, value)
