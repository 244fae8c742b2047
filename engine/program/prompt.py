"""From an instruction, demos and inputs to a prompt, and from a reply back to output fields.

Stable parts come first (instruction, choices, demos), the example last, so that the prompts of one program share
their beginning. Two styles:

    chat    instruction as system message, every demo a user and an assistant turn
    plain   one text, `Field: value` lines, demos separated by blank lines
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import ContentError
from engine.program.parameters import Demo
from engine.program.typed.fields import Field
from engine.program.typed.grammar import LINES, Exactly, Pattern, Repeat, Then, gbnf, optional
from engine.records import Chat, Message, Plain, Prompt


@dataclass(frozen=True, slots=True)
class Layout:
    """What a prompt is made of, apart from the example itself. `choices` are listed where given."""

    instruction: str
    outputs: tuple[str, ...]
    demos: tuple[Demo, ...] = ()
    choices: tuple[str, ...] = ()
    chat: bool = True


def render(layout: Layout, inputs: Mapping[str, str]) -> Prompt:
    """The prompt for one example, ending where the model goes on."""
    head = layout.instruction.strip()
    if layout.choices:
        head += f"\nAnswer with one of: {', '.join(layout.choices)}."
    if not layout.chat:
        blocks = [head, *(_lines(demo.inputs) + "\n" + _lines(demo.outputs) for demo in layout.demos)]
        return Plain("\n\n".join([*blocks, f"{_lines(inputs)}\n{label(layout.outputs[0])}:"]))
    turns = [Message("system", head)]
    for demo in layout.demos:
        turns += [Message("user", _lines(demo.inputs)), Message("assistant", _reply(demo.outputs, layout.outputs))]
    turns.append(Message("user", _lines(inputs)))
    return Chat(tuple(turns), lead=f"{label(layout.outputs[0])}:" if len(layout.outputs) > 1 else "")


def continuation(text: str, chat: bool) -> str:
    """How a closed answer goes on from a prompt: after a colon with a space, at the start of a turn without."""
    return text if chat else f" {text}"


def read_reply(reply: str, fields: Sequence[Field]) -> dict[str, str]:
    """The canonical text of every field from what the model wrote after the prompt.

    One field takes the whole reply. Several stand on `Field:` lines in their order, the first of which the prompt
    has already begun.

    Raises:
        ContentError: a field is missing, or holds no value of its type.
    """
    written = _split(reply, [field.name for field in fields])
    if written is None:
        raise ContentError(f"the reply lacks a field of {', '.join(field.name for field in fields)}")
    texts = {}
    for field in fields:
        try:
            texts[field.name] = field.canonical(written[field.name])
        except ContentError as error:
            raise ContentError(f"{field.name}: {error}") from None
    return texts


@functools.lru_cache(maxsize=256)
def reply_grammar(fields: tuple[Field, ...], chat: bool) -> str | None:
    """GBNF of a reply that `read_reply` can read; None where every field is text.

    Every field but a last one of text stands on one line; a last one that is not may end its line.

    Raises:
        ContentError: the grammar is too large.
    """
    if all(field.is_text for field in fields):
        return None
    last = fields[-1]
    parts: list[Pattern] = [] if chat and len(fields) == 1 else [Exactly(" ")]
    for field, following in itertools.pairwise(fields):
        parts += [field.type.pattern(), Exactly(f"\n{label(following.name)}: ")]
    parts += [Repeat(LINES)] if last.is_text else [last.type.pattern(), optional(Exactly("\n"))]
    return gbnf(Then(tuple(parts)))


def default_stops(outputs: Sequence[str], inputs: Sequence[str], chat: bool) -> tuple[str, ...]:
    """Where an open answer ends by default: in plain text, where the next example would begin."""
    return () if chat else ("\n\n", f"\n{label(inputs[0])}:")


def label(name: str) -> str:
    """A field's name as a prompt writes it: `first_word` becomes `First word`."""
    return name.replace("_", " ").strip().capitalize()


def _split(reply: str, outputs: Sequence[str]) -> dict[str, str] | None:
    """What stands behind each label and its space, as it was written; None where a label is missing."""
    if len(outputs) == 1:
        return {outputs[0]: reply}
    written: dict[str, str] = {}
    rest = reply
    for name, following in itertools.pairwise(outputs):
        before, mark, rest = f"\n{rest}".partition(f"\n{label(following)}:")
        if not mark:
            return None
        written[name] = before[1:].removeprefix(" ")
    return {**written, outputs[-1]: rest.removeprefix(" ")}


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{label(name)}: {text}" for name, text in values.items())


def _reply(values: Mapping[str, str], outputs: Sequence[str]) -> str:
    return values[outputs[0]] if len(outputs) == 1 else _lines({name: values[name] for name in outputs})
