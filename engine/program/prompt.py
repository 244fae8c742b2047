"""From an instruction, demos and inputs to a prompt, and from a reply back to output fields.

Stable parts come first (instruction, choices, demos), the example last, so that the prompts of one program share
their beginning. Two styles:

    chat    instruction as system message, every demo a user and an assistant turn
    plain   one text, `Field: value` lines, demos separated by blank lines
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.program.parameters import Demo
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


def parse(reply: str, outputs: Sequence[str]) -> dict[str, str] | None:
    """Output fields from what the model wrote after the prompt; None where a field is missing.

    One field takes the whole reply. Several stand on `Field:` lines in their order, the first of which the prompt
    has already begun.
    """
    fields: dict[str, str] = {}
    rest = reply
    for name, following in zip(outputs, [*outputs[1:], None], strict=True):
        if following is None:
            fields[name] = rest.strip()
            break
        before, mark, rest = f"\n{rest}".partition(f"\n{label(following)}:")
        if not mark:
            return None
        fields[name] = before.strip()
    return fields


def default_stops(outputs: Sequence[str], inputs: Sequence[str], chat: bool) -> tuple[str, ...]:
    """Where an open answer ends by default: in plain text, where the next example would begin."""
    return () if chat else ("\n\n", f"\n{label(inputs[0])}:")


def label(name: str) -> str:
    """A field's name as a prompt writes it: `first_word` becomes `First word`."""
    return name.replace("_", " ").strip().capitalize()


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{label(name)}: {text}" for name, text in values.items())


def _reply(values: Mapping[str, str], outputs: Sequence[str]) -> str:
    return values[outputs[0]] if len(outputs) == 1 else _lines({name: values[name] for name in outputs})
