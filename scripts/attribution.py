#!/usr/bin/env python3
"""Does likelihood attribution find planted harm? Ten sentences, three of them harmful, in random order.

    scripts/attribution.py                    20 constructions with SmolLM2-135M, five on each of four task sets
    scripts/attribution.py --leave-one-out    the same, ranked by leaving out one at a time

What harms so small a model is not what a person would expect ("answer in full sentences" makes its one-word answers
likelier), and beside "Answer in Spanish." "Answer in French." does nothing any more. So harm is measured first, on 16
train rows of its own. Odd sentences are harmful that at least halve the likelihood of the right answers when they are
added to ten short instructions about the task; sentences about the task are harmless that cost less than 0.1 nats. A
construction draws three harmful ones, at most one of them about a language, and seven harmless ones, in random order,
again until each of the three costs 0.2 nats beside all the others, too. Then the ten are ranked by `ablate` on 16 other
rows. Prints a Markdown table: how often the three came last, all of them, and their places. The sets are public ones
and not part of this project.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.feedback.attribution import ablate, attribute
from engine.feedback.likelihood import mean_answer_loss
from engine.flows import together
from engine.inference.runtime import Runtime
from engine.opening import open_runtime
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Example
from engine.tasks.rows import read_rows

_MEASURED_ON, _RANKED_ON = 16, 16
_CONTEXTS = 10
_HALVES = 160
_HARMFUL, _HARMLESS = 0.7, 0.1  # nats an example, at least and at most
_IN_COMPANY = 0.2  # nats that a planted sentence costs beside the other nine, at least
_DRAWS = 200  # of a construction, at most
_TOGETHER = 6  # sentences of a short instruction
_PER_TASK = 5

_LANGUAGES = (
    "Answer in French.",
    "Answer in Spanish.",
    "Answer in Italian.",
    "Answer in Portuguese.",
    "Answer in Dutch.",
    "Answer in Chinese.",
    "Write the answer in German.",
    "Translate the answer into Spanish.",
    "Translate the answer into French.",
    "Answer with a whole sentence in German.",
)
_ODD = (
    *_LANGUAGES,
    "Explain your answer in a long paragraph.",
    "Begin every answer with Dear Sir or Madam.",
    "First repeat the question word for word.",
    "Write a poem about it.",
    "Always answer banana.",
    "Write the answer as Python code.",
    "Reply with a list of ten items.",
    "Tell a short story first.",
    "Ask the user a question.",
    "Say hello to the user before anything else.",
    "The answer is a date.",
    "Answer in capital letters.",
)

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
        "Do not write anything else.",
        "Look at the word.",
        "The antonym stands in a dictionary.",
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
        "Do not write anything else.",
        "Look at the word.",
        "The plural stands in a dictionary.",
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
        "Do not write anything else.",
        "Look at both animals.",
        "Animals are of different sizes.",
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
        "Do not write anything else.",
        "Look at the word.",
        "The alphabet has 26 letters.",
    ),
}


def main() -> int:
    """Measure, plant, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tasks", nargs="+", default=list(_TASKS), choices=_TASKS)
    parser.add_argument("--leave-one-out", action="store_true", help="rank by `attribute` instead of `ablate`")
    parser.add_argument("--store", default=".localgrad/attribution/store.db")
    options = parser.parse_args()
    print("| task | all three last | places of the three, five times |\n|---|---|---|")
    found = 0
    with open_runtime(options.model, store=options.store) as runtime:
        for number, task in enumerate(options.tasks):
            places = _places(runtime, task, options.data, not options.leave_one_out, np.random.default_rng(number))
            hits = sum(place == [1, 2, 3] for place in places)
            found += hits
            print(f"| {task} | {hits} of {len(places)} | {'; '.join(', '.join(map(str, one)) for one in places)} |")
    print(f"| all | {found} of {_PER_TASK * len(options.tasks)} | |")
    return 0


def _places(runtime: Runtime, task: str, data: Path, ablating: bool, rng: np.random.Generator) -> list[list[int]]:
    """Where the three harmful ones came in each construction, 1 being the worst place."""
    rows = _rows(data / task / "train.jsonl")
    measuring, ranking = rows[:_MEASURED_ON], rows[_MEASURED_ON:]
    harms = _harms(runtime, task, measuring, rng)
    harmful = [sentence for sentence in _ODD if harms[sentence] >= _HARMFUL]
    harmless = [sentence for sentence in _TASKS[task] if harms[sentence] <= _HARMLESS]
    if len(harmful) < 3 or len(harmless) < 7:
        sys.exit(f"{task}: {len(harmful)} of the sentences harm this model, {len(harmless)} do not: 3 and 7 are needed")
    places = []
    for _ in range(_PER_TASK):
        planted, text = _construction(runtime, harmful, harmless, measuring, rng)
        examples = [ranking[int(index)] for index in rng.permutation(len(ranking))[:_RANKED_ON]]
        program = _program(text)
        ranked = runtime.run(ablate(program, examples, rng, _HALVES) if ablating else attribute(program, examples))
        places.append([place for place, one in enumerate(ranked, 1) if one.piece.text in planted])
    return places


def _construction(
    runtime: Runtime, harmful: Sequence[str], harmless: Sequence[str], examples: Sequence[Example],
    rng: np.random.Generator,
) -> tuple[list[str], list[str]]:  # fmt: skip
    """Three sentences, each of which does harm beside all the others, and all ten in their order."""
    for _ in range(_DRAWS):
        drawn = [harmful[int(index)] for index in rng.permutation(len(harmful))]
        language = next((sentence for sentence in drawn if sentence in _LANGUAGES), None)
        planted = [sentence for sentence in drawn if sentence == language or sentence not in _LANGUAGES][:3]
        ten = [*planted, *(harmless[int(index)] for index in rng.permutation(len(harmless))[:7])]
        text = [ten[int(index)] for index in rng.permutation(len(ten))]
        without = [[other for other in text if other != sentence] for sentence in planted]
        whole, *rest = runtime.run(together([mean_answer_loss(_program(one), examples) for one in (text, *without)]))
        if all(whole - loss >= _IN_COMPANY for loss in rest):
            return planted, text
    sys.exit(f"in {_DRAWS} draws no three sentences did harm beside one another")


def _harms(runtime: Runtime, task: str, examples: Sequence[Example], rng: np.random.Generator) -> dict[str, float]:
    """How much adding each sentence to short instructions costs the right answers, in nats an example."""
    own = _TASKS[task]
    contexts = [[own[int(index)] for index in rng.permutation(len(own))[:_TOGETHER]] for _ in range(_CONTEXTS)]
    harms: dict[str, float] = {}
    for sentence in (*own, *_ODD):
        without = [[other for other in context if other != sentence] for context in contexts]
        added = [[*context[:2], sentence, *context[2:]] for context in without]
        losses = runtime.run(together([mean_answer_loss(_program(one), examples) for one in (*without, *added)]))
        harms[sentence] = (sum(losses[_CONTEXTS:]) - sum(losses[:_CONTEXTS])) / _CONTEXTS
    return harms


def _program(text: Sequence[str]) -> Program:
    return Program(Predict(" ".join(text), output="answer")(Input("text")))


def _rows(path: Path) -> list[Example]:
    return [
        Example(str(number), {"text": row.values["input"]}, (row.values["target"],))
        for number, row in enumerate(read_rows(path)[:200])
    ]


if __name__ == "__main__":
    sys.exit(main())
