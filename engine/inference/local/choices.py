"""The label tree: closed answers share the tokens they begin with, and each shared token is computed once.

The likelihood of a label is the product of its tokens' probabilities after the prompt. The first tokens need only the
prompt's last logits; a label's last token needs no row of its own, since nothing is asked of what follows it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LabelTree:
    """Labels as token tuples. `rows` are the inner nodes of the tree, parents first; `tips` the deepest of them.

    `branches[i]` are the numbers of the tips at or below `rows[i]`; `following` are the tokens whose probability is
    needed after a row, and after the prompt itself, the empty row.
    """

    labels: tuple[Tokens, ...]
    rows: tuple[Tokens, ...]
    tips: tuple[Tokens, ...]
    branches: tuple[tuple[int, ...], ...]
    following: Mapping[Tokens, tuple[int, ...]]

    @classmethod
    def of(cls, labels: Sequence[Tokens], end: int) -> "LabelTree":
        """Build the tree; a label that another one starts with gets the token `end` after it."""
        beginnings = {label[:length] for label in labels for length in range(len(label))}
        ended = tuple((*label, end) if label in beginnings else label for label in labels)
        following: dict[Tokens, dict[int, None]] = {(): {}}
        for label in ended:
            for length, token in enumerate(label):
                following.setdefault(label[:length], {})[token] = None
        rows = tuple(sorted((row for row in following if row), key=lambda row: (len(row), row)))
        parents = {row[:-1] for row in rows}
        tips = tuple(row for row in rows if row not in parents)
        below: dict[Tokens, list[int]] = {row: [] for row in rows}
        for number, tip in enumerate(tips):
            for length in range(1, len(tip) + 1):
                below[tip[:length]].append(number)
        branches = tuple(tuple(below[row]) for row in rows)
        return cls(ended, rows, tips, branches, {row: tuple(tokens) for row, tokens in following.items()})


@functools.lru_cache(maxsize=256)
def bounds(tree: LabelTree, bias: tuple[float, ...]) -> Mapping[Tokens, tuple[float, int]]:
    """For every beginning of a label: the largest bias among the labels that begin so, and the first that has it."""
    best: dict[Tokens, tuple[float, int]] = {}
    for number, label in enumerate(tree.labels):
        value = bias[number] if bias else 0.0
        for length in range(1, len(label) + 1):
            if label[:length] not in best or value > best[label[:length]][0]:
                best[label[:length]] = (value, number)
    return best
