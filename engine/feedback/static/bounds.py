"""Fields without a bound, or with one that binds nothing: what may run on, and long texts that later prompts hold."""

import itertools
from collections.abc import Iterator

from engine.feedback.static.finding import Finding, some
from engine.feedback.static.places import predicts, writers
from engine.feedback.static.predicting import field_of
from engine.feedback.static.subject import Subject
from engine.program.cost import tokens
from engine.program.graph import Program
from engine.program.layers import Predict, Sequential
from engine.program.places import Place, place_of_node, places
from engine.program.typed.grammar import longest

LONG_TOKENS = 512  # of a text that others read


def endless_fields(subject: Subject) -> Iterator[Finding]:
    """Typed fields whose values can be longer than their layer may write: one that is cut off is an error."""
    for place, layer in predicts(subject.program):
        for field in layer.fields:
            if field.is_text:
                continue
            size = longest(field.type.pattern())
            if size is None:
                text = f"{field.name} has no bound, and what is cut off at {layer.max_tokens} tokens is an error"
                advice = "bound it: {1,20} in place of + or *, maxItems or maxLength in a schema"
                yield Finding("warning", "endless", f"{place.name}.outputs", text, advice)
            elif tokens("x" * size) > layer.max_tokens:
                text = (
                    f"{field.name} may have {size:,} characters, and what is cut off at {layer.max_tokens:,} tokens "
                    "is an error"
                )
                advice = f"raise max_tokens (to about {tokens('x' * size):,} at most), or bound the field"
                yield Finding("note", "endless", f"{place.name}.outputs", text, advice)


def long_texts(subject: Subject, context: int | None) -> Iterator[Finding]:
    """Open text in the middle of the program whose cap is a large part of what later prompts can hold."""
    most = LONG_TOKENS if context is None else min(LONG_TOKENS, context // 4)
    readers: dict[str, list[str]] = {}
    for name, reader in _read_texts(subject.program):
        readers.setdefault(name, []).append(reader)
    for place, layer in predicts(subject.program):
        if place.name in readers and not layer.choices and layer.max_tokens >= most:
            read = some(list(dict.fromkeys(readers[place.name])))
            text = f"it may write {layer.max_tokens:,} tokens, which the prompt of {read} must hold"
            advice = "lower max_tokens, or give it a stop"
            yield Finding("warning", "long_text", f"{place.name}.max_tokens", text, advice)


def _read_texts(program: Program) -> Iterator[tuple[str, str]]:
    """What writes open text that something else reads, and what reads it."""
    for reader in program.nodes:
        for reference in reader.sources.values():
            if "." in reference:
                node, _, field = reference.partition(".")
                yield from _open_writers(place_of_node(program, node), field, reader.name)
    for place in places(program):
        if isinstance(place.layer, Sequential):
            for part, following in itertools.pairwise(place.parts):
                for field in part.layer.outputs:
                    yield from _open_writers(part, field, following.name)


def _open_writers(place: Place, field: str, reader: str) -> Iterator[tuple[str, str]]:
    for writer, name in writers(place, field):
        if isinstance(writer.layer, Predict) and field_of(writer.layer, name).is_text:
            yield writer.name, reader
