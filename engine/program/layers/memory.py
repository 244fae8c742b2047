"""Memory: notes that go along from one example to the next. The recurrent state of a network (the comparison is ours).

The notes are a parameter and are saved with the program. As a node a memory is read: its last notes, those nearest in
meaning to the node's inputs, or all. After an example it is written (`engine.forward.unrolled`): a line of what was
asked and answered (window), a summary written anew with it (Wang 2023, arXiv 2308.15022), or a sentence that is worth
remembering (insights; ExpeL; Zhao 2024, learning from successes and failures).

Deviation: ExpeL first gathers experience, then has a model compare it and add, edit and vote on a list of insights.
Here each example gives one sentence under a grammar, which a very small model can write; repeated ones are dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

from engine.errors import ContentError
from engine.flows import Flow, ask
from engine.program.cost import Cost, tokens
from engine.program.critique import Gradients, critique
from engine.program.event import ANSWER_CHARS, Event, one_line
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.parameters import Choice, Notes, Number, Parameter, Text
from engine.program.pool import EMBEDDER
from engine.program.typed.grammar import prose
from engine.records import Chat, Generate, Message, Nearest, Step

Read = Literal["window", "all", "recall"]
Write = Literal["none", "window", "summary", "insights"]

NOTHING = "nothing yet"


class _Writer(NamedTuple):
    """How a model is asked for a note. `chars` bound it, and `tokens` what is written."""

    instruction: str
    chars: int
    tokens: int


_WRITERS = {
    "summary": _Writer(
        "Rewrite the summary so that it also holds what is new. Keep names, facts and numbers.", 400, 112
    ),
    "insights": _Writer("Say in one sentence what is worth remembering for next time.", 240, 56),
}


@dataclass(frozen=True, slots=True)
class Memory(Layer):
    """Notes, how they are read, and how they are written.

    Read are the last `k` (window), the `k` nearest to the node's inputs, nearest first (recall), or all; whatever goes
    beyond `chars` characters is left out, first what is oldest or farthest. At most `size` notes are kept, of a summary
    one. `instruction` is for the model that writes a summary or insights.

    Raises:
        ContentError: settings that contradict one another.
    """

    entries: tuple[str, ...] = ()
    output: str = "memory"
    read: Read = "window"
    write: Write = "window"
    k: int = 4
    size: int = 64
    chars: int = 2000
    instruction: str = ""

    kind: ClassVar[str] = "memory"

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", (self.entries,) if isinstance(self.entries, str) else tuple(self.entries))
        if self.write not in get_args(Write):
            raise ContentError(f"write: expected one of {', '.join(get_args(Write))}, found {self.write!r}", ("write",))
        if self.write in _WRITERS:
            object.__setattr__(self, "instruction", self.instruction or _WRITERS[self.write].instruction)
        elif self.instruction:
            raise ContentError(f"instruction has no meaning with write: {self.write}", ("instruction",))

    @property
    def room(self) -> int:
        """How many notes there can be."""
        return 1 if self.write == "summary" else self.size

    @property
    def outside(self) -> tuple[Outside, ...]:
        """The embedder, where notes are recalled by meaning."""
        return (Outside("embedder", EMBEDDER),) if self.read == "recall" else ()

    @property
    def summary(self) -> str:
        """How many notes there are, and how they are read and written."""
        count = f"{len(self.entries)} note{'s' * (len(self.entries) != 1)}"
        read = self.read if self.read == "all" else f"{self.read} {self.k}"
        return ", ".join((count, read, *([f"writes {self.write}"] if self.write != "none" else [])))

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """entries, read, k, size, chars and, where a model writes, instruction.

        An optimizer may turn recall into another way of reading but not bring it in: it needs an embedder.
        """
        recall = ("recall",) if self.read == "recall" else ()
        found: dict[str, Parameter] = {
            "entries": Notes(self.entries, self.room),
            "read": Choice(self.read, ("window", "all", *recall)),
            "k": Number(self.k, 1, 50, whole=True),
            "size": Number(self.size, 1, 500, whole=True),
            "chars": Number(self.chars, 100, 20_000, whole=True),
        }
        return {**found, "instruction": Text(self.instruction)} if self.write in _WRITERS else found

    def with_parameters(self, values: Mapping[str, Any]) -> Self:
        """The same layer with checked values; a smaller `size` drops the oldest notes."""
        layer = replace(self, **values)
        return replace(layer, entries=layer.entries[-layer.room :])

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """The notes as one text. Only recall asks for anything."""
        if self.read != "recall" or not self.entries:
            newest = self.entries[-self.k :] if self.read == "window" else self.entries
            return LayerResult({self.output: self._text(_within(newest[::-1], self.chars)[::-1])})
        query = "\n".join(text for text in inputs.values() if text.strip())
        completion = yield from ask(Nearest(query, self.entries, self.k))
        if completion.passages is None:
            return LayerResult(error=completion.error)
        found = [replace(passage, text=self.entries[int(passage.id)]) for passage in completion.passages]
        shown = _within([passage.text for passage in found], self.chars)
        return LayerResult({self.output: self._text(shown)}, passages=tuple(found[: len(shown)]))

    def _text(self, notes: Sequence[str]) -> str:
        return "\n".join(notes if self.write == "summary" else (f"- {note}" for note in notes)) or NOTHING

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the notes is asked of the instruction by which a model writes them, if there are any.

        Notes themselves get no gradient: the instruction or the examples made them. Of the inputs, what was said of
        the notes is said where they chose the notes, in recall.
        """
        found = Gradients()
        if self.write in _WRITERS and step.outputs.get(self.output) != NOTHING:
            text = yield from critique(step, said, "instruction", self.instruction)
            found.add(Gradients.of(["instruction"], [text]))
        if self.read == "recall":
            found.inputs = {name: [f"It recalled notes of which was said: {text}" for text in said] for name in wanted}
        return found

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """What writing costs after the example; reading asks no model."""
        gives = {self.output: -(-self.chars // 4)}
        if self.write not in _WRITERS:
            return Cost(gives=gives)
        writer = _WRITERS[self.write]
        known = writer.tokens if self.write == "summary" else 0
        read = tokens(self.instruction) + sum(inputs.values()) + ANSWER_CHARS // 2 + known
        return Cost(1, read, writer.tokens, gives)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def note(self, event: Event) -> Flow[LayerResult]:
        """What to write down of an event, as the output `note`; empty where that is nothing."""
        if self.write not in _WRITERS:
            return LayerResult({"note": event.line if self.write == "window" else ""})
        writer = _WRITERS[self.write]
        before = [f"Summary: {note}" for note in self.entries if self.write == "summary"]
        told = "\n".join([*before, *event.lines, self.instruction])  # last: a small model goes on from what is nearest
        turns = (Message("system", "You keep short notes for later."), Message("user", told))
        asked = Generate(Chat(turns), writer.tokens, stop=("\n",), grammar=prose(writer.chars))
        completion = yield from ask(asked)
        if completion.text is None:
            return LayerResult(error=completion.error)
        return LayerResult({"note": one_line(completion.text, writer.chars + 12)})

    def holding(self, note: str) -> Self:
        """The same memory with a note more, the oldest dropped beyond `size`; a summary is replaced.

        A blank note changes nothing, nor does an insight that is held already, in whatever case.
        """
        known = {_normal(entry) for entry in self.entries} if self.write == "insights" else set()
        if not note.strip() or _normal(note) in known:
            return self
        return replace(self, entries=(*self.entries, note)[-self.room :])


def _within(notes: Sequence[str], chars: int) -> list[str]:
    """The first notes that have so many characters together, and of the very first as much as fits."""
    kept = [note if len(note) <= chars else one_line(note, chars) for note in notes[:1]]
    for note in notes[1:]:
        if sum(map(len, kept)) + len(note) > chars:
            break
        kept.append(note)
    return kept


def _normal(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
