"""Where remarks stand in an execution: beside the innermost step that they are about."""

from collections.abc import Iterator, Sequence

from engine.records import Remark, RemarkKind, Step

_ORDER: tuple[RemarkKind, ...] = ("failure", "loss", "judge", "attribution", "gradient")


def by_step(remarks: Sequence[Remark], steps: Sequence[Step]) -> dict[str, list[Remark]]:
    """Remarks by the whole name of a step (`answer.steps.plan`); by an empty one where they are about none of them.

    Those beside a step come by kind: what failed first, the gradients last.
    """
    places = list(_places(steps))
    found: dict[str, list[Remark]] = {}
    for remark in sorted(remarks, key=lambda remark: _ORDER.index(remark.kind)):
        about = [place for place in places if remark.node == place or remark.node.startswith(f"{place}.")]
        found.setdefault(max(about, key=len, default=""), []).append(remark)
    return found


def _places(steps: Sequence[Step], before: str = "") -> Iterator[str]:
    for step in steps:
        yield f"{before}{step.node}"
        yield from _places(step.steps, f"{before}{step.node}.")
