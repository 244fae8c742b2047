"""A digest: what a program is for, in a few lines that fit into a prompt.

For strategies that write without running anything: what goes in, what comes out and how often, what each node does,
and three examples. The same program and rows give the same text (compare the dataset summary and the program-aware
proposer of MIPRO; Opsahl-Ong 2024, section 4.1: there a model writes both, here nothing is asked).
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from engine.feedback.static.finding import cut
from engine.feedback.static.places import answerers
from engine.feedback.static.predicting import field_of, options
from engine.program.graph import Program
from engine.program.layers import Predict
from engine.program.places import places
from engine.records import Example

_SHOWN = 3  # examples
_MOST_LABELS = 12
_LENGTHS = (320, 240, 160, 120, 80, 60, 40, 24)  # of a text, in characters, the first that fits


def digest_of(program: Program, examples: Sequence[Example], most_chars: int = 1600) -> str:
    """The digest, of at most `most_chars` characters: the shorter it must be, the more its texts are cut.

    Where even short texts do not fit, lines are left out from the end.
    """
    for length in _LENGTHS:
        lines = list(_lines(program, examples, length))
        if len("\n".join(lines)) <= most_chars:
            break
    while lines and len("\n".join(lines)) > most_chars:
        lines.pop()
    return "\n".join(lines)


def _lines(program: Program, examples: Sequence[Example], length: int) -> Iterator[str]:
    for name in program.inputs:
        yield f"Input {name}{_words([row.inputs.get(name, '') for row in examples])}."
    yield f"Answer {program.output_field}{_answer(program, examples, length)}."
    for number, node in enumerate(program.nodes, 1):
        reads = ", ".join(node.sources.values())
        what = " ".join(filter(None, (node.layer.kind, f"({cut(node.layer.summary, length)})")))
        yield f"Step {number}, {node.name}: {what.removesuffix(' ()')} of {reads}."
        for place in places(program):
            if isinstance(place.layer, Predict) and place.name.partition(".")[0] == node.name:
                part = "" if place.name == node.name else f" of {place.name}"
                yield f'Instruction{part}: "{cut(place.layer.instruction, length)}"'
    for row in _different(examples):
        given = "; ".join(f"{name} = {cut(row.inputs.get(name, ''), length)}" for name in program.inputs)
        yield f"Example: {given} => {cut(row.target or 'no answer is given', length)}"


def _answer(program: Program, examples: Sequence[Example], length: int) -> str:
    """What the answer is: one of several, with how often each is right, or a text of some length."""
    targets = [row.target for row in examples if row.target is not None]
    closed: dict[str, None] = {}
    for place, name in answerers(program):
        found = options(place.layer, field_of(place.layer, name)) if isinstance(place.layer, Predict) else ()
        if not found:
            return _words(targets)
        closed |= dict.fromkeys(found)
    counts = Counter(targets)
    ranked = sorted(closed, key=lambda option: -counts[option])
    told = [f"{cut(option, length)} {counts[option]}" if targets else cut(option, length) for option in ranked]
    more = f" and {len(told) - _MOST_LABELS} more" if len(told) > _MOST_LABELS else ""
    times = f", with how often each is right in {len(targets)}" if targets else ""
    return f": one of {len(told)}{times}: {', '.join(told[:_MOST_LABELS])}{more}"


def _words(texts: Sequence[str]) -> str:
    """How long texts are: in the mean, and the longest of them."""
    sizes = [len(text.split()) for text in texts]
    return f": {round(sum(sizes) / len(sizes))} words in the mean, at most {max(sizes)}" if sizes else ""


def _different(examples: Sequence[Example]) -> list[Example]:
    """The first examples, one for each answer as far as that goes."""
    first: dict[str | None, Example] = {}
    for row in examples:
        first.setdefault(row.target, row)
    chosen = list(first.values())[:_SHOWN]
    return chosen + [row for row in examples[: 2 * _SHOWN] if row not in chosen][: _SHOWN - len(chosen)]
