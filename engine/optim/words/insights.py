"""Insights: a short list of rules at the end of an instruction, how important each has proved, and how it is edited.

They stand in the text itself, so that the program is all there is to know of them:

    Classify the question.

    Remember:
    1. When the question asks who, the answer is human. (3)
    2. Look at the first word. (2)

The figure in parentheses is the importance (ExpeL; Zhao 2024): 2 for a new insight, one more where it is voted up or
edited, one less where it is voted down, and at 0 it goes. The most important stand first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

MOST = 6
_HEADING = "Remember:"
_NEW = 2
_LINE = re.compile(r"\d+[.)][ \t]+(?P<text>\S.*?)(?:[ \t]+\((?P<importance>\d{1,4})\))?[ \t]*")

Kind = Literal["ADD", "EDIT", "UPVOTE", "DOWNVOTE"]


@dataclass(frozen=True, slots=True)
class Insight:
    """A rule on one line, and how important it has proved."""

    text: str
    importance: int = _NEW


@dataclass(frozen=True, slots=True)
class Operation:
    """A change to a list: ADD and EDIT have a text, all but ADD the place of the insight meant, from 0 on."""

    kind: Kind
    place: int = -1
    text: str = ""


def read(instruction: str) -> tuple[str, tuple[Insight, ...]]:
    """An instruction without its insights, and these in their order.

    The list is what stands behind the last line that is just the heading, if all of it is numbered lines: whoever has
    edited the instruction may have changed numbers or left out importances. With anything else there the instruction
    has no list.
    """
    lines = instruction.split("\n")
    headings = [place for place, line in enumerate(lines) if line.strip() == _HEADING]
    if not headings:
        return instruction, ()
    found = [_LINE.fullmatch(line.strip()) for line in lines[headings[-1] + 1 :] if line.strip()]
    insights = [Insight(match["text"], int(match["importance"] or _NEW)) for match in found if match]
    if not insights or len(insights) < len(found):
        return instruction, ()
    return "\n".join(lines[: headings[-1]]).rstrip(), tuple(insights)


def told(instruction: str, insights: Sequence[Insight]) -> str:
    """An instruction with insights behind it; `read` takes them apart again."""
    if not insights:
        return instruction
    lines = [f"{number}. {one.text} ({one.importance})" for number, one in enumerate(insights, 1)]
    return "\n".join([*([instruction, ""] if instruction else []), _HEADING, *lines])


def edited(insights: Sequence[Insight], operations: Sequence[Operation]) -> tuple[Insight, ...]:
    """The list after operations that were all decided on looking at it as it is given; at most `MOST` remain.

    What is added or edited to what another insight says already is a vote for that one.
    """
    now = list(insights)
    for operation in operations:
        same = next((place for place, one in enumerate(now) if _alike(one.text, operation.text)), None)
        if operation.kind in ("ADD", "EDIT") and same is not None:
            now[same] = _voted(now[same], 1)
        elif operation.kind == "ADD":
            now.append(Insight(operation.text))
        elif operation.kind == "EDIT":
            now[operation.place] = replace(_voted(now[operation.place], 1), text=operation.text)
        else:
            now[operation.place] = _voted(now[operation.place], 1 if operation.kind == "UPVOTE" else -1)
    kept = [one for one in now if one.importance > 0]
    return tuple(sorted(kept, key=lambda one: -one.importance)[:MOST])


def _voted(insight: Insight, by: int) -> Insight:
    return replace(insight, importance=insight.importance + by)


def _alike(one: str, other: str) -> bool:
    return one.casefold().rstrip(".") == other.casefold().rstrip(".")
