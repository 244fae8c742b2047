"""Cases: what an edit should help with, gathered from what the program got wrong on train."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.optim.edits.operators import Target
from engine.records import Example

_SHOWN = 4
_ROWS = 1000  # of train, to count words in
_MOST_WORDS = 5
_LEAST_RATIO = 2.0
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Case:
    """What an edit is to help with: a right answer, and examples of it.

    `telling` are words that tell these from other examples, `rare` longer ones that stand in one of them and in no
    other row: a text that names one is about that example alone.
    """

    right: str
    examples: tuple[Example, ...]
    telling: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()


def cases_of(
    target: Target, train: Sequence[Example], missed: Sequence[Example], most: int, rng: Generator
) -> list[Case]:
    """At most so many cases: a label each where there are labels, that most often missed first, else a few examples.

    Where too few labels were missed the others follow in any order. `missed` are the rows that went wrong.
    """
    order = [train[int(index)] for index in rng.permutation(len(train))[:_ROWS]]
    everywhere = _holding(order)
    if not target.labels:
        rows = list(missed) or order
        return [_case("", rows[number::most], (), everywhere) for number in range(min(most, len(rows)))]
    counts = Counter(row.target for row in missed)
    drawn = [target.labels[int(index)] for index in rng.permutation(len(target.labels))]
    cases = []
    for label in sorted(drawn, key=lambda label: -counts[label]):
        own = {row.id: row for row in (*missed, *order) if row.target == label}
        others = [row for row in order if row.target != label]
        if own:
            examples = tuple(own.values())
            cases.append(_case(label, examples, telling_words(examples, others), everywhere))
    return cases[:most]


def names_one_example(text: str, case: Case) -> bool:
    """Whether a text holds a word that stands in one of the case's examples and nowhere else."""
    return not set(_WORD.findall(text.casefold())).isdisjoint(case.rare)


def _case(label: str, examples: Sequence[Example], telling: tuple[str, ...], everywhere: Counter[str]) -> Case:
    shown = tuple(examples[:_SHOWN])
    rare = [word for word in _holding(shown) if len(word) > 3 and everywhere[word] < 2]
    return Case(label, shown, telling, tuple(sorted(rare)))


def telling_words(examples: Sequence[Example], others: Sequence[Example]) -> tuple[str, ...]:
    """Words that stand in several examples and, relatively, at most half as often in others; the most telling first.

    By the logarithm of the ratio of their frequencies, each plus one half, times how many examples hold them.
    """
    own, other = _holding(examples), _holding(others)

    def ratio(word: str) -> float:
        return (own[word] + 0.5) / (len(examples) + 1) / ((other[word] + 0.5) / (len(others) + 1))

    several = [word for word, count in own.items() if count > 1 and ratio(word) >= _LEAST_RATIO]
    return tuple(sorted(several, key=lambda word: (-own[word] * math.log(ratio(word)), word))[:_MOST_WORDS])


def _holding(examples: Sequence[Example]) -> Counter[str]:
    """How many examples hold each word."""
    return Counter(
        word
        for example in examples
        for word in sorted(set(_WORD.findall(" ".join(example.inputs.values()).casefold())))
    )
