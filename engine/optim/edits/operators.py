"""Operators: the few kinds of edits of a text, each a small record. What one leaves open is filled in by a slot.

    add_sentence       a sentence of advice more                 add_rule          If …, answer LABEL.
    delete_sentence    a sentence less                           describe_label    "LABEL" means ….
    replace_sentence   a sentence said otherwise                 change_format     Answer with one word.
    move_sentence      a sentence at the front                   reorder_demos     a demonstration last

Compare the edit operations on phrases of GrIPS (Prasad 2023): delete, swap, paraphrase, add. Ours are typed: of
sentences, rules, labels and formats, so that a very small model has a few words to write.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.program.graph import Program
from engine.program.parameters import Bias, Demo, Demos, Text
from engine.program.prompt import label
from engine.program.sentences import Sentences, inserted, joined, moved, replaced, split, without

Slot = Literal["sentence", "wording", "rule", "description"]

FORMATS = (
    "Answer with one word.",
    "Answer in as few words as possible.",
    "Give the answer only.",
    "Think of every possible answer before you choose.",
)
_DESCRIBES = re.compile(r'"(?P<label>[^"\n]+)" means ')
_RULE = re.compile(r"If the .+, .+\.")


@dataclass(frozen=True, slots=True)
class Target:
    """A text that can be edited, and what stands beside it in its node: its labels, and its demonstrations in order.

    `field` is what the node reads first, in the words of a prompt.
    """

    name: str
    text: Text
    field: str
    labels: tuple[str, ...] = ()
    demos: tuple[Demo, ...] = ()

    @property
    def sentences(self) -> Sentences:
        """The text's sentences."""
        return split(self.text.value)

    @property
    def demos_name(self) -> str:
        """The parameter that holds its demonstrations."""
        return f"{self.name.rpartition('.')[0]}.demos"


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: the operator that made it, and the new value of a parameter.

    `filling` is what filled its slot, and `label` the label that this is about.
    """

    operator: str
    parameter: str
    value: str | tuple[Demo, ...]
    filling: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of edit: where it can be made, which slot has to be filled for it, and what it makes.

    A place is a number that `made` understands, mostly that of a sentence; there is none where it does not apply.
    """

    name: str
    places: Callable[[Target], Sequence[int]]
    made: Callable[[Target, int, str], str | tuple[Demo, ...]]
    slot: Slot | None = None

    def edit(self, target: Target, place: int, filling: str = "", label: str = "") -> Edit:
        """The edit at a place."""
        parameter = target.demos_name if self.name == "reorder_demos" else target.name
        return Edit(self.name, parameter, self.made(target, place, filling), filling, label)


def targets(program: Program) -> list[Target]:
    """Every text of a program, in its order."""
    parameters = program.parameters
    found = []
    for name, value in parameters.items():
        if not isinstance(value, Text):
            continue
        beside = name.rpartition(".")[0]
        bias, demos = parameters.get(f"{beside}.bias"), parameters.get(f"{beside}.demos")
        fixed = isinstance(demos, Demos) and not demos.nearest
        reads = program.node(name.partition(".")[0]).inputs
        field = next((field for field in reads if field in program.inputs), program.inputs[0])
        labels = bias.choices if isinstance(bias, Bias) else ()
        shown = demos.value if isinstance(demos, Demos) and fixed else ()
        found.append(Target(name, value, label(field).casefold(), labels, shown))
    return found


def described(text: str) -> dict[str, int]:
    """The labels that a text describes, each with the place of the sentence that does."""
    found = [(_DESCRIBES.match(sentence.words), place) for place, sentence in enumerate(split(text))]
    return {match["label"]: place for match, place in found if match}


def derived(before: Target, after: Target) -> str | None:
    """The operator that leads from one text to another, as far as that can be seen; None where none does alone."""
    old, new = [one.words for one in before.sentences], [one.words for one in after.sentences]
    if old == new:
        return "reorder_demos" if before.demos != after.demos and set_of(before) == set_of(after) else None
    gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
    if any(one in FORMATS for one in (*gone, *come)):
        return "change_format"
    if not gone and not come:
        return "move_sentence"
    if len(come) == 0:
        return "delete_sentence"
    if _DESCRIBES.match(come[0]):
        return "describe_label"
    if len(gone) == 1:
        return "replace_sentence"
    return "add_rule" if _RULE.fullmatch(come[0]) else "add_sentence"


def set_of(target: Target) -> list[str]:
    """A target's demonstrations, whatever their order."""
    return sorted(str(demo.to_mapping()) for demo in target.demos)


def _spoken(target: Target) -> list[int]:
    """The places of sentences with words in them."""
    return [place for place, sentence in enumerate(target.sentences) if sentence.words]


def _end(target: Target) -> list[int]:
    return [len(target.sentences)]


def _several(target: Target) -> list[int]:
    spoken = _spoken(target)
    return spoken if len(spoken) > 1 else []


def _free(target: Target) -> list[int]:
    """Sentences that are neither a format nor about one label or case."""
    sentences = target.sentences
    taken = set(described(target.text.value).values())
    return [
        place
        for place in _spoken(target)
        if place not in taken and sentences[place].words not in FORMATS and not _RULE.fullmatch(sentences[place].words)
    ]


def _with(target: Target, place: int, filling: str) -> str:
    return joined(inserted(target.sentences, place, filling))


def _describe(target: Target, place: int, filling: str) -> str:
    """The description in place of that of the same label, or as one more."""
    match = _DESCRIBES.match(filling)
    known = described(target.text.value).get(match["label"]) if match else None
    if known is None:
        return _with(target, place, filling)
    return joined(replaced(target.sentences, known, filling))


def _other_formats(target: Target) -> list[int]:
    present = {sentence.words for sentence in target.sentences}
    return [number for number, line in enumerate(FORMATS) if line not in present]


def _format(target: Target, place: int, filling: str) -> str:
    """The format's line in place of another one's, or at the end."""
    sentences = target.sentences
    known = next((number for number, sentence in enumerate(sentences) if sentence.words in FORMATS), None)
    if known is None:
        return joined(inserted(sentences, len(sentences), FORMATS[place]))
    return joined(replaced(sentences, known, FORMATS[place]))


def _last(target: Target, place: int, filling: str) -> tuple[Demo, ...]:
    return (*target.demos[:place], *target.demos[place + 1 :], target.demos[place])


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("describe_label", lambda target: _end(target) if target.labels else [], _describe, "description"),
        Operator("add_rule", _end, _with, "rule"),
        Operator("add_sentence", _end, _with, "sentence"),
        Operator("delete_sentence", _several, lambda target, place, _: joined(without(target.sentences, place))),
        Operator(
            "replace_sentence",
            _free,
            lambda target, place, filling: joined(replaced(target.sentences, place, filling)),
            "wording",
        ),
        Operator(
            "move_sentence",
            lambda target: _several(target)[1:],
            lambda target, place, _: joined(moved(target.sentences, place, _spoken(target)[0])),
        ),
        Operator("change_format", _other_formats, _format),
        Operator("reorder_demos", lambda target: range(max(0, len(target.demos) - 1)), _last),
    )
}
