"""Remarks of the backward pass: what it found in one execution, as it is kept in the store beside the trace."""

from collections.abc import Collection, Mapping, Sequence

from engine.feedback.diagnosis import diagnose
from engine.program.graph import Program
from engine.records import Remark, RemarkKind, Trace


def remarks_on(program: Program, trace: Trace, gradients: Mapping[str, Sequence[str]]) -> list[Remark]:
    """What went wrong, the loss, and the textual gradients by the name of a parameter or the reference of an output.

    The first of those of the program's output is the loss in words; its number is 1 minus the score.
    """
    remarks = [failure_of(program, trace)] if trace.score < 1.0 else []
    for name, texts in gradients.items():
        loss = 1 if name == program.output and trace.score < 1.0 else 0
        remarks += [_remark(trace, name, "loss", text, 1.0 - trace.score) for text in texts[:loss]]
        remarks += [_remark(trace, name, "gradient", text) for text in texts[loss:]]
    return remarks


def failure_of(program: Program, trace: Trace, cut: Collection[str] = ()) -> Remark:
    """What went wrong in a failed execution; what `cut` is says `diagnose`."""
    found = diagnose(program, trace, cut)
    return _remark(trace, found.node, "failure", ": ".join(filter(None, (found.kind, found.label))))


def _remark(trace: Trace, node: str, kind: RemarkKind, text: str, value: float | None = None) -> Remark:
    return Remark(trace.program, trace.example, node, kind, text, value)
