#!/usr/bin/env python3
"""Does likelihood attribution find planted harm? Ten sentences, three of them harmful, in random order.

    scripts/attribution.py                    20 constructions with SmolLM2-135M, five on each of four task sets

Each construction draws three of a task's harmful sentences (statements that are wrong of the task) and seven of its
harmless ones, shuffles them into one instruction, and ranks the ten by `attribute` on 40 train examples. What is harmful
was written down beforehand and not chosen by its effect. Prints a Markdown table: how often all three came last, and
their places. The sets are public ones and not part of this project.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.feedback.attribution import attribute
from engine.opening import open_runtime
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Example
from engine.tasks.rows import read_rows

_EXAMPLES = 24
_PER_TASK = 2
STYLE = sys.argv.pop() if sys.argv[-1] in ("plain", "chat") else "plain"

# Wrong of every task, whose answers are one word or letter.
_HARMFUL = (
    "Explain your answer in a long paragraph.",
    "Begin every answer with Dear Sir or Madam.",
    "First repeat the question word for word.",
    "Write a poem about it.",
    "Answer in full sentences of at least ten words.",
    "Answer with a number between 100 and 999.",
)

# What is right of each task, or does not matter.
_TASKS: Mapping[str, tuple[str, ...]] = {
    "ii_antonyms": (
        "Write the antonym of the word.",
        "An antonym is a word of the opposite meaning.",
        "The antonym of hot is cold.",
        "The antonym of rich is poor.",
        "The antonym of happy is unhappy.",
        "Answer with one word.",
        "The word is in English.",
        "Use small letters.",
        "Many antonyms begin with un or in.",
    ),
    "ii_singular_to_plural": (
        "Write the plural of the word.",
        "The plural is used for more than one.",
        "The plural of dog is dogs.",
        "The plural of box is boxes.",
        "The plural of city is cities.",
        "Answer with one word.",
        "The word is a noun.",
        "Use small letters.",
        "Most plurals end in s.",
    ),
    "ii_larger_animal": (
        "Write the larger of the two animals.",
        "Think of how much each of them weighs.",
        "Of ant, whale the larger one is whale.",
        "Of horse, mouse the larger one is horse.",
        "Of snail, lion the larger one is lion.",
        "Answer with the name of one animal.",
        "The animals are divided by a comma.",
        "Use small letters.",
        "One of the two is always larger.",
    ),
    "ii_first_word_letter": (
        "Write the first letter of the word.",
        "A word begins with its first letter.",
        "The first letter of house is h.",
        "The first letter of moon is m.",
        "The first letter of apple is a.",
        "Answer with one letter.",
        "The word is in English.",
        "Use small letters.",
        "It is a letter from a to z.",
    ),
}


def main() -> int:
    """Rank, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tasks", nargs="+", default=list(_TASKS))
    options = parser.parse_args()
    with open_runtime(options.model, store=":memory:") as runtime:
        for task in options.tasks:
            right, wrong = _TASKS[task], _HARMFUL
            examples = _rows(options.data / task / "train.jsonl")
            for number in range(_PER_TASK):
                rng = np.random.default_rng([number, len(task)])
                planted = [wrong[int(index)] for index in rng.permutation(len(wrong))[:3]]
                harmless = [right[int(index)] for index in rng.permutation(len(right))[:7]]
                text = [*planted, *harmless]
                program = _program(" ".join(text[int(index)] for index in rng.permutation(10)))
                chosen = [examples[int(index)] for index in rng.permutation(len(examples))[:_EXAMPLES]]
                ranked = runtime.run(attribute(program, chosen))
                for one in ranked:
                    print(
                        f"  {one.effect:+.4f} ±{one.error:.4f} {'X' if one.piece.text in planted else ' '} {one.piece.text}"
                    )
                print(task, number, [place for place, one in enumerate(ranked, 1) if one.piece.text in planted])
    return 0


def _program(instruction: str) -> Program:
    return Program(Predict(instruction, output="answer", style=STYLE)(Input("text")))


def _rows(path: Path) -> list[Example]:
    return [
        Example(str(number), {"text": row.values["input"]}, (row.values["target"],))
        for number, row in enumerate(read_rows(path)[:200])
    ]


if __name__ == "__main__":
    sys.exit(main())
