"""opro: a new instruction that would score higher, asked for with the scores of those tried (Yang 2024, section 4).

The prompt shows a few train examples, drawn anew for each play, and the instructions tried so far with their scores
from 0 to 100, the best last, at most the twenty best. Eight new ones are drawn at temperature 1, so that the model
stays near good ones and tries others (section 2.3). No failure is shown and nothing is executed: scores alone lead.

A score is the mean value on dev of the incumbent with that instruction; `variants` says what it is for one that has not
seen all of dev. Theirs are accuracies on a part of train: ours cost nothing, since the run has measured them already.

Deviations: each score stands before its instruction and the model goes on behind a score above the best. It is the form
that the authors' code has for a model which was not tuned to follow requests; of SmolLM2-135M's answers to a request
for a better instruction few were instructions. Other tasks with such scores are shown first. Sampling keeps to the
likeliest words (top-p 0.7): at temperature 1 a very small model otherwise writes what makes no sense. A program may
have several texts, and each play is about one of them.
"""

from collections.abc import Sequence

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow
from engine.optim.history import History, Proposal
from engine.optim.words.telling import on_a_line
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.variants import alike_but_for, variants
from engine.optim.words.worked import COUNTRY, HOTEL, PLURAL, Worked
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.event import one_line
from engine.program.graph import Program

_SAMPLES = 8
_SHOWN = 20
_EXAMPLES = 3
_MOST_CHARS = 300
_MOST_TOKENS = 72
_ABOUT = "Tasks, and instructions for them with their scores from 0 to 100, each better than the one before."
_WORKED = ((PLURAL, 48, 61), (HOTEL, 55, 70), (COUNTRY, 37, 52))  # scores as they may be


class OPROProposer:
    """Proposes up to eight new values of one text."""

    name = "opro"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Texts that have not been tried with the incumbent yet, in the order drawn."""
        texts = texts_of(history.program)
        if not texts:
            return []
        name = next_text(history, self.name, list(texts), rng)
        most = history.objective.most
        tried = [(variant.text, _points(variant.value, most)) for variant in variants(history, name)[-_SHOWN:]]
        brief = Brief(
            _ABOUT,
            (*_examples(history, rng), *_scored(tried)),
            _MOST_CHARS,
            _MOST_TOKENS,
            temperature=1.0,
            top_p=0.7,
            shown=tuple(_worked(task, first, second) for task, first, second in _WORKED),
            openings=openings_like(texts[name].value),
            plain=True,
        )
        found = yield from written(history, brief, min(_SAMPLES, history.allowance_calls), rng)
        known = alike_but_for(history, history.program, name)
        new = [text for text in found if fits(texts[name], text) and text not in known]
        return [Proposal({name: text}, f"{name} after the scores of {len(tried)}: {text}") for text in new]


def _examples(history: History, rng: Generator) -> list[Part]:
    """A few train examples of what the program as a whole does, on a line each."""
    drawn = [history.train[int(index)] for index in rng.permutation(len(history.train))[:_EXAMPLES]]
    field = history.program.output_field
    lines = [on_a_line(example.inputs, {field: example.target}) for example in drawn if example.target]
    return [Part(line, _SHOWN + 1.0) for line in lines]


def _scored(tried: Sequence[tuple[str, int]]) -> list[Part]:
    """Instructions with their scores, the best last and the last to be left out; then the score to reach."""
    parts = [
        Part(f"\nScore: {score}\nInstruction: {one_line(text, _MOST_CHARS)}", float(place))
        for place, (text, score) in enumerate(tried)
    ]
    best = max((score for _, score in tried), default=0)
    return [*parts, Part(f"\nScore: {best + -(-(100 - best) // 4)}\nInstruction:")]


def _worked(task: Worked, first: int, second: int) -> tuple[str, str]:
    """A worked task in the same form, with two instructions and their scores, and a better one."""
    scored = _scored([(task.reworded, first), (task.instruction, second)])
    return "\n".join((task.pairs, *(part.text for part in scored))), task.better


def _points(value: float, most: float) -> int:
    """A value as a score from 0 to 100, which the highest value there can be would have."""
    return round(100 * min(1.0, max(0.0, value / most if most > 0 else value)))
