"""The label tree: closed answers share the tokens they begin with, and each shared token is computed once.

The likelihood of a label is the product of its tokens' probabilities after the prompt. The first tokens need only the
prompt's last logits; a label's last token needs no row of its own, since nothing is asked of what follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelTree:
    """Labels as token tuples. `rows` are the inner nodes of the tree, parents first; `tips` the deepest of them.

    `branches[i]` are the numbers of the tips at or below `rows[i]`.
    """

    labels: tuple[Tokens, ...]
    rows: tuple[Tokens, ...]
    tips: tuple[Tokens, ...]
    branches: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[Tokens], end: int) -> "LabelTree":
        """Build the tree; a label that another one starts with gets the token `end` after it."""
        ended = tuple(
            (*label, end) if any(other != label and other[: len(label)] == label for other in labels) else label
            for label in labels
        )
        rows = tuple(
            sorted(
                {label[:length] for label in ended for length in range(1, len(label))}, key=lambda row: (len(row), row)
            )
        )
        tips = tuple(
            row for row in rows if not any(len(other) > len(row) and other[: len(row)] == row for other in rows)
        )
        branches = tuple(tuple(number for number, tip in enumerate(tips) if tip[: len(row)] == row) for row in rows)
        return cls(ended, rows, tips, branches)

    def wanted(self, prefix: Tokens) -> tuple[int, ...]:
        """Tokens whose probability is needed right after `prefix` (empty: after the prompt), each once."""
        length = len(prefix)
        following = [label[length] for label in self.labels if len(label) > length and label[:length] == prefix]
        return tuple(dict.fromkeys(following))
