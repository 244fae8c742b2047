"""Measuring: a flow that has the prompts of a program counted over the longest rows of train.

A Predict's prompts are counted as they would be asked; what other nodes write into them is left blank, and taken at the
most that it may be. Layers that ask in ways of their own are estimated (`Layer.cost`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engine.feedback.static.places import answerers, is_vital
from engine.feedback.static.predicting import options, request_of
from engine.feedback.static.sizes import Size
from engine.feedback.static.subject import Subject
from engine.flows import Flow, ask, together
from engine.program.composite import Composite
from engine.program.estimate import ASSUMED_TOKENS
from engine.program.layers import Predict
from engine.program.parameters import Demo
from engine.program.places import Place, place_of_node
from engine.program.prompt import label
from engine.program.typed.grammar import shortest
from engine.records import Count, Plain, Prompt, Score

_LONGEST_ROWS = 8  # by characters; one of them is the longest in tokens
_MEAN_ROWS = 24


def measured(subject: Subject) -> Flow[list[Size]]:
    """The size of every place that asks the model, in the order of the nodes. Asks for nothing but Count."""
    known = yield from _input_sizes(subject)
    found: list[Flow[Size]] = []
    for node in subject.program.nodes:
        given = {name: known[reference] for name, reference in node.sources.items()}
        for place, sizes in _with_parts(place_of_node(subject.program, node.name), given):
            if isinstance(place.layer, Predict):
                found.append(_counted(subject, place, place.layer, sizes))
            elif (guessed := _guessed(place, sizes)) is not None:
                found.append(_already(guessed))
        gives = node.layer.cost(given).gives
        known |= {f"{node.name}.{name}": gives.get(name, ASSUMED_TOKENS) for name in node.layer.outputs}
    return (yield from together(found))


def _input_sizes(subject: Subject) -> Flow[dict[str, int]]:
    """The tokens of each of the program's inputs where it is longest; an assumption where no row tells."""
    longest = {}
    for name in subject.program.inputs:
        longest[name] = max((row.inputs.get(name, "") for row in subject.train), key=len, default="")
    counts = yield from _tokens_of(list(longest.values()))
    known = dict(zip(longest, counts, strict=True))
    return known if subject.train else dict.fromkeys(known, ASSUMED_TOKENS)


def _with_parts(place: Place, sizes: Mapping[str, int]) -> Iterator[tuple[Place, Mapping[str, int]]]:
    """A place and all that lie in it, each with how long the fields are that it reads."""
    yield place, sizes
    for part in place.parts:
        inner = sizes
        if isinstance(place.layer, Composite):
            inner = place.layer.part_sizes(part.name.removeprefix(f"{place.name}."), sizes)
        yield from _with_parts(part, {name: inner.get(name, ASSUMED_TOKENS) for name in part.sources})


def _guessed(place: Place, sizes: Mapping[str, int]) -> Size | None:
    """The longest request that a layer makes itself; None where it makes none, or none longer than its parts'."""
    cost = place.layer.cost(sizes)
    if not cost.bounded:
        return None if place.parts else Size(place.name, by="none")
    inner = [part.layer.cost(given).longest for part, given in _with_parts(place, sizes) if part.name != place.name]
    return Size(place.name, by="estimate", fixed=cost.longest) if cost.longest > max(inner, default=0) else None


def _already(size: Size) -> Flow[Size]:
    yield from ()
    return size


def _counted(subject: Subject, place: Place, layer: Predict, sizes: Mapping[str, int]) -> Flow[Size]:
    """What a Predict asks, counted."""
    own = {name: source for name, source in place.sources.items() if source in subject.program.inputs}
    blank = dict.fromkeys(place.sources, "")
    given = [{name: row.inputs.get(source, "") for name, source in own.items()} for row in subject.train]
    by_length = sorted(range(len(given)), key=lambda at: -sum(map(len, given[at].values())))[:_LONGEST_ROWS]
    spread = range(0, len(given), max(1, len(given) // _MEAN_ROWS))
    bare, shown, *rows = yield from _counts(
        [
            request_of(layer, (), blank).prompt,
            request_of(layer, _longest_demos(layer), blank).prompt,
            *(request_of(layer, (), blank | given[at]).prompt for at in (*by_length, *spread)),
        ]
    )
    long, mean = rows[: len(by_length)], rows[len(by_length) :]
    longest = max(range(len(long)), key=long.__getitem__, default=None)
    reply = yield from _reply(subject, place, layer)
    return replace(
        reply,
        fixed=bare,
        demos=shown - bare,
        rows=round(sum(mean) / len(mean)) - bare if mean else 0,
        longest=0 if longest is None else long[longest] - bare,
        row="" if longest is None or not own else subject.train[by_length[longest]].origin,
        others=sum(size for name, size in sizes.items() if name not in own),
        pooled=layer.nearest > 0,
    )


def _longest_demos(layer: Predict) -> list[Demo]:
    """The demonstrations that a prompt shows, of a pool the longest."""
    if not layer.nearest:
        return list(layer.demos)
    by_length = sorted(layer.demos, key=lambda demo: -sum(map(len, (*demo.inputs.values(), *demo.outputs.values()))))
    return by_length[: int(layer.nearest)]


def _reply(subject: Subject, place: Place, layer: Predict) -> Flow[Size]:
    """What a Predict may write or scores, and what it should have room for."""
    request = request_of(layer, (), dict.fromkeys(place.sources, ""))
    if isinstance(request, Score):
        choices = yield from _tokens_of(request.continuations)
        return Size(place.name, reply=max(choices), vital=is_vital(place))
    wanted = {option: "" for field in layer.fields for option in options(layer, field)}
    if any(place.name == other.name for other, _ in answerers(subject.program)):
        targets = {row.target: row.origin for row in reversed(subject.train) if row.target}
        wanted |= {target: targets[target] for target in sorted(targets, key=len)[-_LONGEST_ROWS:]}
    least, *counts = yield from _tokens_of([_shortest_reply(layer), *wanted])
    longest = max(range(len(counts)), key=counts.__getitem__, default=None)
    size = Size(place.name, reply=int(layer.max_tokens), needed=least, vital=is_vital(place))
    if longest is None:
        return size
    beside = least if len(layer.fields) > 1 else 0  # the other fields, at their shortest
    return replace(size, wanted=counts[longest] + beside, wanted_row=list(wanted.values())[longest])


def _shortest_reply(layer: Predict) -> str:
    """A reply that can be read, none of them shorter."""
    first, *others = layer.fields
    lines = [
        shortest(first.type.pattern()),
        *(f"{label(field.name)}: {shortest(field.type.pattern())}" for field in others),
    ]
    return "\n".join(lines)


def _tokens_of(texts: Sequence[str]) -> Flow[list[int]]:
    """The tokens of texts by themselves, without what begins every prompt."""
    empty, *counts = yield from _counts([Plain(""), *map(Plain, texts)])
    return [count - empty for count in counts]


def _counts(prompts: Sequence[Prompt]) -> Flow[list[int]]:
    answers = yield from together([ask(Count(prompt)) for prompt in prompts])
    return [answer.count or 0 for answer in answers]
