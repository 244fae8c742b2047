"""What an instruction asks for and its layer cannot give. English words are looked for, so a finding is a hint."""

import re
from collections.abc import Iterator

from engine.feedback.static.finding import Finding, some
from engine.feedback.static.listed_labels import listed_labels
from engine.feedback.static.places import predicts
from engine.feedback.static.predicting import can_give, options
from engine.feedback.static.subject import Subject
from engine.program.layers import Predict
from engine.program.typed.fields import FloatType, IntType, ListType, SchemaType
from engine.tasks.answers import normalized

_ASKS = r"\b(?:answer|reply|respond|return|output|write|give|produce|format)\w*\b[^.\n]{0,40}?"
_ARTICLE = r"(?:just\s+|only\s+)?(?:a|an|one|the)\s+(?:single\s+|whole\s+)?"
_JSON = re.compile(rf"{_ASKS}\b(?:in|as|with|valid|an?)\s+(?:(?:an?|valid|single)\s+)*json\b", re.IGNORECASE)
_NUMBER = re.compile(rf"{_ASKS}\b(?:with|as|in)\s+{_ARTICLE}(?:number|integer|digit)\b", re.IGNORECASE)
_ONE_WORD = re.compile(r"\b(?:one|a single)[- ]word\b(?! or)", re.IGNORECASE)
_SENTENCE = re.compile(r"\b(?:in|with|as) (?:a|one|full|complete|whole) (?:\w+ )?sentences?\b", re.IGNORECASE)
_REASONS = re.compile(
    r"\bstep[- ]by[- ]step\b|\bexplain (?:your|why|how)\b|\bjustify\b|\bshow your work\b"
    r"|\b(?:give|state|write|add) (?:your|the|a) (?:reasons?|reasoning|explanation)\b"
    r"|\bthink (?:aloud|out loud|first)\b",
    re.IGNORECASE,
)


def foreign_labels(subject: Subject) -> Iterator[Finding]:
    """Labels listed in an instruction that its layer cannot give, and lists that leave some of its choices out."""
    for place, layer in predicts(subject.program):
        closed = options(layer, layer.fields[-1])
        if closed or isinstance(layer.fields[-1].type, IntType | FloatType):
            says = next(_wrong_lists(layer, closed), "")
            if says:
                advice = "name the choices as they are, or none of them"
                yield Finding("warning", "foreign_label", f"{place.name}.instruction", says, advice)


def _wrong_lists(layer: Predict, closed: tuple[str, ...]) -> Iterator[str]:
    field = layer.fields[-1]
    for listed in listed_labels(layer.instruction, closed):
        known = [item for item in listed.items if can_give(layer, field, item)]
        foreign = [item for item in listed.items if item not in known]
        left_out = [item for item in closed if normalized(item) not in map(normalized, known)]
        if foreign and (len(known) > 1 or listed.as_answers):
            yield f"it names {some(foreign)}, and {field.name} is {_one_of(closed)}"
        elif listed.as_answers and len(known) > 1 and left_out:
            yield f"it lists {some(known)}, and leaves out {some(left_out)}"


def foreign_formats(subject: Subject) -> Iterator[Finding]:
    """Forms that an instruction asks for and its layer's fields cannot have."""
    for place, layer in predicts(subject.program):
        for asked, instead in _unmet(layer):
            text = f"it asks for {asked}, and {instead}"
            advice = "leave that out, or change the outputs"
            yield Finding("warning", "foreign_format", f"{place.name}.instruction", text, advice)


def unnamed_choices(subject: Subject) -> Iterator[Finding]:
    """Prompts in which no choice is named: neither listed, nor in the instruction, nor in a demonstration."""
    for place, layer in predicts(subject.program):
        told = normalized(layer.instruction)
        if not layer.choices or layer.list_choices == "yes" or layer.demos:
            continue
        if not any(normalized(choice) in told for choice in layer.choices):
            text = f"nothing in the prompt says that {layer.outputs[-1]} is {_one_of(layer.choices)}"
            advice = "write list_choices: yes, or name them in the instruction"
            yield Finding("note", "unnamed_choices", f"{place.name}.list_choices", text, advice)


def _unmet(layer: Predict) -> Iterator[tuple[str, str]]:
    """What is asked for, and what there is instead."""
    told, field = layer.instruction, layer.fields[-1]
    closed = options(layer, field)
    if not closed and not isinstance(field.type, IntType | FloatType):
        return
    alone = len(layer.fields) == 1
    fixed = f"{field.name} is {_one_of(closed)}"
    several = [option for option in closed if len(option.split()) > 1]
    if _JSON.search(told) and not any(isinstance(item.type, ListType | SchemaType) for item in layer.fields):
        yield "JSON", fixed
    if _REASONS.search(told) and alone:
        yield "reasons", f"no field before {field.name} could hold them"
    if _ONE_WORD.search(told) and several:
        yield "one word", f"{some(several)} {'has' if len(several) == 1 else 'have'} more"
    if _SENTENCE.search(told) and alone and not several:
        yield "a sentence", fixed
    if _NUMBER.search(told) and closed and not any(character.isdigit() for option in closed for character in option):
        yield "a number", fixed


def _one_of(closed: tuple[str, ...]) -> str:
    return f"one of {some(closed)}" if closed else "a number"
