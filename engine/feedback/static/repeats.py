"""What is said or asked twice: requests, instructions, and sentences within one text."""

import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from engine.feedback.static.finding import Finding, cut
from engine.feedback.static.places import is_sampled, predicts
from engine.feedback.static.subject import Subject
from engine.program.layers import Agent, Memory, Predict, ToolCall
from engine.program.parameters import Text
from engine.program.places import Place, places

_ALIKE = 0.94  # of the words of two texts: one of twenty differs
_FEWEST_WORDS = 6  # of texts that are compared word by word
_FEWEST_IN_SENTENCE = 4  # shorter ones are labels and the lines of examples
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w+")
_DEFAULTS = {layer.kind: layer.instruction for layer in (Agent, ToolCall)}


def repeated_requests(subject: Subject) -> Iterator[Finding]:
    """Predicts that ask the very same of the same fields: the second answer is the first one again.

    That holds at any temperature: what is sampled is drawn from the request, unless something draws it several times.
    """
    for (first, layer), (second, other) in itertools.combinations(predicts(subject.program), 2):
        same_fields = dict(first.sources) == dict(second.sources) and all(first.sources.values())
        if same_fields and is_sampled(first) == is_sampled(second) and replace(other, output=layer.fields) == layer:
            text = f"it asks what {first.name} asks, of the same fields, so that it gives the same answer"
            yield Finding("warning", "repeated_request", second.name, text, "drop it, or let it ask something else")


def repeated_instructions(subject: Subject) -> Iterator[Finding]:
    """Instructions in two places that are the same or nearly so."""
    told = list(_instructions(subject))
    for (first, text), (second, other) in itertools.combinations(told, 2):
        degree = _likeness(text, other)
        if degree:
            says = f"{degree} instruction as {first}"
            yield Finding("note", "repeated_instruction", second, says, "say in each what is asked of it alone")


def repeated_sentences(subject: Subject) -> Iterator[Finding]:
    """Texts that say a sentence twice."""
    for name, parameter in subject.program.parameters.items():
        if not isinstance(parameter, Text):
            continue
        seen: set[tuple[str, ...]] = set()
        for sentence in _SENTENCE_END.split(parameter.value):
            words = _words(sentence)
            if words in seen:
                text = f'it says twice: "{cut(sentence)}"'
                yield Finding("warning", "repeated_sentence", name, text, "say it once")
                break
            if len(words) >= _FEWEST_IN_SENTENCE:
                seen.add(words)


def _instructions(subject: Subject) -> Iterator[tuple[str, str]]:
    """Instructions that somebody wrote, by the name of their parameter."""
    for place in places(subject.program):
        text = _instruction(place)
        if text and text != _DEFAULTS.get(place.layer.kind):
            yield f"{place.name}.instruction", text


def _instruction(place: Place) -> str:
    if isinstance(place.layer, Memory):
        return ""  # by default it comes with the way of writing
    if isinstance(place.layer, Predict):
        return place.layer.instruction
    parameter = place.layer.parameters(tuple(place.sources)).get("instruction")
    return parameter.value if isinstance(parameter, Text) else ""


def _likeness(text: str, other: str) -> str:
    one, two = _words(text), _words(other)
    if one == two:
        return "the same"
    if min(len(one), len(two)) < _FEWEST_WORDS:
        return ""
    matcher = difflib.SequenceMatcher(None, one, two, autojunk=False)
    near = matcher.real_quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE
    return "nearly the same" if near else ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))
