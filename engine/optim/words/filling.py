"""Filling: asking the optimizer's model for what a form leaves open, such as a few words, a label or a function.

A form says how its answer must look, as a pattern. The answer is decoded under it and looked at again, since a remote
model may know no grammars. So a very small model has little to write and nothing to get wrong.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part, packed
from engine.flows import Flow, ask, together
from engine.optim.history import History
from engine.program.typed.grammar import OneOf, Pattern, Repeat, Then, gbnf, matches, written_out
from engine.records import Chat, Completion, Generate, Message

# Characters of words in a sentence: letters, digits, space, apostrophe, parentheses, hyphen, slash. None that could end
# the sentence, quote it or mark it up.
_LETTERS = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x1FFF), (0x2C00, 0xD7FF))
_WORDS = OneOf(((0x20, 0x20), (0x27, 0x29), (0x2D, 0x2D), (0x2F, 0x39), *_LETTERS))


@dataclass(frozen=True, slots=True)
class Form:
    """A text to be filled in.

    `system` says who the model is to be, `shown` are other cases with their answers, and `parts` make the request. The
    answer opens with `lead` and goes on as `pattern` says, given how many characters free words may have: at most
    `chars`. `most_tokens` bounds what is decoded.
    """

    system: str
    parts: tuple[Part, ...]
    pattern: Callable[[int], Pattern]
    lead: str = ""
    shown: tuple[tuple[str, str], ...] = ()
    chars: int = 60
    most_tokens: int = 40
    temperature: float = 0.7


def some_words(chars: int) -> Pattern:
    """A few words on one line, of at most so many characters, beginning with a letter and without a mark at the end."""
    return Then((OneOf(_LETTERS), Repeat(_WORDS, 2, chars - 1)))


def filled(history: History, form: Form, samples: int, rng: Generator) -> Flow[list[str]]:
    """Up to `samples` different texts, `lead` in front, in the order drawn.

    What does not keep to the pattern is dropped, and so is what fills its room to the last character, since it was cut
    off, and what repeats four words of a case that was shown.
    """
    completions = yield from answers(history, form, samples, rng)
    kept = form.pattern(form.chars - 1)
    said = {words for _, answered in form.shown for words in _fours(answered.removeprefix(form.lead))}
    texts = [(completion.text or "").rstrip() for completion in completions]
    fitting = [
        text
        for text in texts
        if len(text) <= written_out(kept) and matches(kept, text) and said.isdisjoint(_fours(text))
    ]
    return list(dict.fromkeys(form.lead + text for text in fitting))


def answers(history: History, form: Form, samples: int, rng: Generator) -> Flow[list[Completion]]:
    """`samples` answers as they came. The request holds what of the form's parts fits into `history.room_tokens`."""
    base = int(rng.integers(0, 2**31))
    before = [turn for asked, said in form.shown for turn in (Message("user", asked), Message("assistant", said))]

    def render(parts: Sequence[Part]) -> Chat:
        request = Message("user", "\n".join(part.text for part in parts))
        return Chat((Message("system", form.system), *before, request), lead=form.lead)

    prompt = yield from packed(form.parts, history.room_tokens - form.most_tokens, render)
    grammar = gbnf(form.pattern(form.chars))
    requests = [
        Generate(
            prompt, form.most_tokens, temperature=form.temperature, top_p=0.95, sample=base + number, grammar=grammar,
            role="optimizer",
        )
        for number in range(samples)
    ]  # fmt: skip
    return (yield from together([ask(request) for request in requests]))


def _fours(text: str) -> list[tuple[str, ...]]:
    """All runs of four words."""
    found = re.findall(r"\w+", text.casefold())
    return [tuple(found[start : start + 4]) for start in range(len(found) - 3)]
