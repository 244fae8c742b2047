"""Writing: asking the optimizer's model for new texts, in a form that always parses.

Every strategy that edits words asks here. Texts are decoded under a grammar: a line of whole sentences that begins with
a capital letter and ends with a full stop, which a very small model keeps to as well as a large one. What was cut off,
says nothing new or repeats a train example word for word is dropped (an instruction that recites an example is learnt
by heart, not understood).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part, packed
from engine.flows import Flow, ask, together
from engine.optim.history import History
from engine.program.typed.grammar import Exactly, Pattern, Then, gbnf, matches, optional, prose
from engine.records import Chat, Completion, Example, Generate, Message, Plain, Prompt

_STEM = 30  # characters of an example that a text may not repeat
_NAMED = re.compile(r"(?<=[\w,;:\"] )[A-Z]\w*|(?<=[\w,;:\"] )\d+")  # but for the first word of a sentence
ARROW = "->"  # between what goes in and what comes out, where a plain brief shows examples
_ECHO = 5  # words in a row of what was shown that a text may not repeat


@dataclass(frozen=True, slots=True)
class Brief:
    """What is asked for: who the model is to be (`system`), the parts of the request, and the form of the answer.

    `most_chars` bounds the answer's text, `most_tokens` what is decoded of it. `shown` are requests of other tasks with
    good answers, told as turns before this one: a very small model does what it has been shown. Where there are
    `openings` the answer begins with one of these words.

    A `plain` brief is a text to go on from: `system` says what it is, and each request ends with the name of what comes
    next ("Instruction:"). A very small model writes to the point that way more often than when it is asked. `form` is
    what the whole answer must look like where that is not a line of prose; it is over where the form is.
    """

    system: str
    parts: tuple[Part, ...]
    most_chars: int = 400
    most_tokens: int = 96
    temperature: float = 0.7
    top_p: float = 0.95
    shown: tuple[tuple[str, str], ...] = ()
    openings: tuple[str, ...] = ()
    plain: bool = False
    form: Pattern | None = None


def written(history: History, brief: Brief, samples: int, rng: Generator) -> Flow[list[str]]:
    """Up to `samples` different texts, in the order drawn; fewer where some were of no use.

    The request holds what of `brief` fits into `history.room_tokens`, what matters least being left out.
    """
    base = int(rng.integers(0, 2**31))  # before anything is asked: what is drawn must not depend on who answers first
    return (yield from _written(history, brief, samples, base))


def _written(history: History, brief: Brief, samples: int, base: int) -> Flow[list[str]]:
    def render(parts: Sequence[Part]) -> Prompt:
        return _prompt(brief, "\n".join(part.text for part in parts))

    prompt = yield from packed(brief.parts, history.room_tokens - brief.most_tokens, render)
    grammar, stop = _grammar(brief), () if brief.form else ("\n",)
    asked = [
        Generate(
            prompt, brief.most_tokens, stop=stop, temperature=brief.temperature, top_p=brief.top_p,
            sample=base + number, grammar=grammar, role="optimizer",
        )
        for number in range(samples)
    ]  # fmt: skip
    completions = yield from together([ask(request) for request in asked])
    texts = dict.fromkeys(text for completion in completions if (text := _finished(completion)))
    return [text for text in texts if _useful(text, brief) and not recites(text, history.train)]


def _prompt(brief: Brief, asked: str) -> Prompt:
    if brief.plain:
        return Plain("\n\n".join((brief.system, *(f"{before} {told}" for before, told in brief.shown), asked)))
    turns = [Message("system", brief.system)]
    for before, told in brief.shown:
        turns += [Message("user", before), Message("assistant", told)]
    return Chat((*turns, Message("user", asked)))


def _grammar(brief: Brief) -> str:
    before = " " if brief.plain else ""
    if brief.form is None:
        return prose(brief.most_chars, brief.openings, before)
    return gbnf(Then((Exactly(before), brief.form, optional(Exactly("\n")))))


def _useful(text: str, brief: Brief) -> bool:
    """Whether a text has the length and the form asked for, and is of its own words."""
    fitting = len(text) <= brief.most_chars and (brief.form is None or matches(brief.form, text))
    return fitting and not _echoes(text, brief) and not (brief.plain and ARROW in text)


def recites(text: str, examples: Sequence[Example]) -> bool:
    """Whether a text repeats the beginning of an example's input word for word."""
    return any(
        len(value) >= _STEM and value[:_STEM] in text for example in examples for value in example.inputs.values()
    )


def particular(text: str, shown: str) -> bool:
    """Whether a text names something, or gives a number, that stands in the examples shown: it is about one of them."""
    return not set(_NAMED.findall(text)).isdisjoint(re.findall(r"\w+", shown))


def _echoes(text: str, brief: Brief) -> bool:
    """Whether a text repeats words in a row of what was shown, and the request does not have them too."""
    asked = _runs(" ".join(part.text for part in brief.parts))
    own = next((text.removeprefix(word) for word in brief.openings if text.startswith(word)), text)
    return bool(_runs(own) & {run for turn in brief.shown for line in turn for run in _runs(line) - asked})


def _runs(text: str) -> set[tuple[str, ...]]:
    words = [word.strip(".,;:") for word in text.lower().split()]
    return {tuple(words[place : place + _ECHO]) for place in range(len(words) - _ECHO + 1)}


def openings_like(*texts: str) -> tuple[str, ...]:
    """Words that a new instruction may begin with: verbs that give an order, where all the texts there are begin so.

    Any, which is to say none, where one begins otherwise: it is no order, or in another language. A small model that
    may begin as it likes answers the instruction that it should rewrite, or talks about it.
    """
    firsts = [text.split(maxsplit=1)[0].strip(".,:;") for text in texts if text.strip()]
    known = bool(firsts) and set(firsts) <= {*_ORDERS, *_OTHER_ORDERS}
    return tuple(dict.fromkeys((*firsts, *_ORDERS))) if known else ()


def _finished(completion: Completion) -> str:
    """The text of an answer that came to its end; empty for any other."""
    return "" if completion.error or completion.finish != "stop" else (completion.text or "").strip()


_ORDERS = tuple(
    """
    Calculate Categorize Check Choose Classify Compare Complete Compute Consider Convert Correct Count Decide
    Describe Detect Determine Explain Extract Fill Find Follow Give Judge Look Make Match Name Pick Predict Provide
    Put Read Recognize Rewrite Say Select Show Summarize Take Tell Think Translate Turn Use Work Write
    """.split()  # noqa: SIM905 (a list of literals would take a page)
)
# Orders too, but a small model goes astray behind them: it takes them for nouns, or wanted to begin with A, I or So.
_OTHER_ORDERS = tuple(
    "Add Analyze Answer Ask Assign Guess Identify Label List Output Plan Reply Solve Sort State".split()  # noqa: SIM905
)
