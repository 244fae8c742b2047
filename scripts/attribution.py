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

_EXAMPLES = 40
_PER_TASK = 5
STYLE = sys.argv.pop() if sys.argv[-1] in ("plain", "chat") else "plain"

# What is said of each task: its labels (none: open text), what is right or does not matter, and what is wrong.
_TASKS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "trec": (
        ("abbreviation", "description", "entity", "human", "location", "number"),
        (
            "Read the question.",
            "Decide what kind of answer it asks for.",
            "Who asks for a human.",
            "Where asks for a location.",
            "How many asks for a number.",
            "What is asks for a description or an entity.",
            "Answer with one of the six kinds.",
            "The question is in English.",
            "Look at the first word.",
        ),
        (
            "Always answer abbreviation.",
            "Every question asks for a location.",
            "The right answer is always number.",
            "Questions are never about humans, so say entity.",
            "If unsure, or if sure, say abbreviation.",
        ),
    ),
    "agnews": (
        ("Business", "Sci/Tech", "Sports", "World"),
        (
            "Read the news.",
            "Decide which section of a newspaper it belongs to.",
            "Games, teams and players belong to Sports.",
            "Companies, shares and markets belong to Business.",
            "Software, science and space belong to Sci/Tech.",
            "Wars, elections and governments belong to World.",
            "Answer with the name of the section.",
            "The news is from the year 2004.",
            "Look at the whole text.",
        ),
        (
            "Always answer Sports.",
            "Every text belongs to World.",
            "The right answer is always Business.",
            "Games, teams and players belong to Sci/Tech, and so does everything else.",
            "If unsure, or if sure, say Sports.",
        ),
    ),
    "snips_intent": (
        (
            "AddToPlaylist",
            "BookRestaurant",
            "GetWeather",
            "PlayMusic",
            "RateBook",
            "SearchCreativeWork",
            "SearchScreeningEvent",
        ),
        (
            "Read the request.",
            "Decide what the user wants.",
            "A table for dinner is BookRestaurant.",
            "Rain, sun and temperature are GetWeather.",
            "A song to be played is PlayMusic.",
            "Stars or points for a book are RateBook.",
            "Answer with the name of the intent.",
            "The request was typed into a phone.",
            "Look at the verb.",
        ),
        (
            "Always answer RateBook.",
            "Every request is GetWeather.",
            "The right answer is always AddToPlaylist.",
            "A table for dinner is PlayMusic, and so is everything else.",
            "If unsure, or if sure, say SearchScreeningEvent.",
        ),
    ),
    "ii_antonyms": (
        (),
        (
            "Read the word.",
            "Write its antonym.",
            "An antonym is a word of the opposite meaning.",
            "The antonym of hot is cold.",
            "The antonym of up is down.",
            "Answer with one word.",
            "The word is in English.",
            "Use small letters.",
            "Many antonyms begin with un or in.",
        ),
        (
            "Always answer banana.",
            "Write a long story about a king.",
            "Answer in Chinese characters only.",
            "The answer is a number between 100 and 999.",
            "Write the same word again and again.",
        ),
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
            labels, right, wrong = _TASKS[task]
            examples = _rows(options.data / task / "train.jsonl")
            for number in range(_PER_TASK):
                rng = np.random.default_rng([number, len(task)])
                planted = [wrong[int(index)] for index in rng.permutation(len(wrong))[:3]]
                harmless = [right[int(index)] for index in rng.permutation(len(right))[:7]]
                text = [*planted, *harmless]
                program = _program(" ".join(text[int(index)] for index in rng.permutation(10)), labels)
                chosen = [examples[int(index)] for index in rng.permutation(len(examples))[:_EXAMPLES]]
                ranked = runtime.run(attribute(program, chosen))
                for one in ranked:
                    print(
                        f"  {one.effect:+.4f} ±{one.error:.4f} {'X' if one.piece.text in planted else ' '} {one.piece.text}"
                    )
                print(task, number, [place for place, one in enumerate(ranked, 1) if one.piece.text in planted])
    return 0


def _program(instruction: str, labels: Sequence[str]) -> Program:
    return Program(Predict(instruction, output="answer", choices=tuple(labels), style=STYLE)(Input("text")))


def _rows(path: Path) -> list[Example]:
    return [
        Example(str(number), {"text": row.values["input"]}, (row.values["target"],))
        for number, row in enumerate(read_rows(path)[:200])
    ]


if __name__ == "__main__":
    sys.exit(main())
