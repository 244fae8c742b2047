"""Findings: what is the matter, how bad it is, where, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]

OfProgram = Literal[
    "dead_node", "unused_input", "unused_field", "missing_field",
    "repeated_request", "repeated_instruction", "repeated_sentence",
    "foreign_label", "foreign_format", "unnamed_choices",
    "foreign_demo", "repeated_demo", "contrary_demos", "leaked_demo",
    "cap", "stop", "endless", "long_text",
    "idle_setting", "sampled_decision", "few_votes", "same_proposals", "same_experts", "endless_check", "unused_tools",
    "empty_memory", "no_passages",
    "context", "outside",
]  # fmt: skip
OfTask = Literal[
    "unused_data", "foreign_target", "unmet_metric", "lone_label", "missing_label", "imbalance", "few_rows"
]
Kind = OfProgram | OfTask

_RANK = {name: rank for rank, name in enumerate(get_args(Severity))}
_OF_TASK = frozenset(get_args(OfTask))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found at `place`: a node, a parameter of one (`node.parameter`) or a key of the task (`data.dev`).

    An error fails, or can never be right; a warning costs score or tokens; a note is worth knowing. `row` is the
    `file:line` of a row that shows it, where one does.
    """

    severity: Severity
    kind: Kind
    place: str
    text: str
    advice: str
    row: str = ""

    @property
    def of_task(self) -> bool:
        """Whether `place` is a key of the task file outside its program."""
        return self.kind in _OF_TASK


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, errors first; of equal severity in the order given."""
    return sorted(dict.fromkeys(findings), key=lambda finding: _RANK[finding.severity])


def some(names: Sequence[str], most: int = 4) -> str:
    """Names as one text, no more than a few of them: `a, b, c, d and 3 more`."""
    listed = ", ".join(map(cut, names[:most]))
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


def cut(text: str, most: int = 48) -> str:
    """A text on one line, and not all of it where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def share(found: int, of: int, noun: str = "row") -> str:
    """How many of how many: `3 of 170 rows`, `all 40 rows`, `the only row`."""
    if found == of:
        return f"the only {noun}" if of == 1 else f"all {of:,} {noun}s"
    return f"{found:,} of {of:,} {noun}s"
