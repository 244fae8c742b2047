"""Settings of layers that contradict one another, or have no effect."""

from collections.abc import Iterator
from dataclasses import fields

from engine.feedback.static.finding import Finding, some
from engine.feedback.static.places import is_sampled
from engine.feedback.static.predicting import options
from engine.feedback.static.subject import Subject
from engine.program.layer import Layer, is_users
from engine.program.layers import Agent, Memory, Predict, Refine, Retrieve, Route, TreeSearch, Vote
from engine.program.layers.refine import passes
from engine.program.parameters import Number
from engine.program.places import Place, places
from engine.program.typed.fields import BoolType, ChoicesType

_MOST_FUSED = 2 / 61  # first in both rankings: 1 / (60 + rank) of each
_MOST_COSINE = 1.0


def odd_settings(subject: Subject) -> Iterator[Finding]:
    """What is odd about each layer, by its kind."""
    for place in places(subject.program):
        match place.layer:
            case Predict():
                yield from _sampled_decision(place, place.layer)
            case Vote():
                yield from _few_votes(place, place.layer)
            case TreeSearch():
                yield from _narrow_search(place, place.layer)
            case Agent():
                yield from _unused_tools(place, place.layer)
            case Memory():
                yield from _empty_memory(place, place.layer)
            case Retrieve():
                yield from _high_threshold(place, place.layer)
            case Refine():
                yield from _endless_rounds(place, place.layer)
            case Route():
                yield from _same_experts(place, place.layer)


def _sampled_decision(place: Place, layer: Predict) -> Iterator[Finding]:
    """A closed decision that is drawn at random, once."""
    decides = all(isinstance(field.type, ChoicesType | BoolType) for field in layer.fields)
    if layer.temperature > 0 and decides and not is_sampled(place):
        text = f"at temperature {layer.temperature:g} it draws its decision at random, and only once"
        advice = "write temperature: 0, or have a vote sample it"
        yield Finding("warning", "sampled_decision", f"{place.name}.temperature", text, advice)


def _few_votes(place: Place, layer: Vote) -> Iterator[Finding]:
    """A vote in which nobody can be outvoted."""
    many = int(layer.n) if layer.of else len(layer.parts)
    if many > 2 or (many == 2 and layer.weights == "likelihood"):
        return
    text = "of two votes the first wins, whatever the second is" if many == 2 else "the only vote wins"
    name, advice = ("n", "write n: 3 or more") if layer.of else ("branches", "give three branches or more")
    yield Finding("warning", "few_votes", f"{place.name}.{name}", text, advice)


def _narrow_search(place: Place, layer: TreeSearch) -> Iterator[Finding]:
    """A search whose proposals are all alike, that ends before its depth, or with a setting of the other strategy."""
    proposing = _all_layers(layer.propose)
    if layer.branch > 1 and not any(_is_hot(part) or is_users(type(part)) for part in proposing):
        text = f"at temperature 0 the {layer.branch} thoughts drawn from a state are all the same"
        advice = "give propose a temperature such as 0.8, or write branch: 1"
        yield Finding("warning", "same_proposals", f"{place.name}.propose.temperature", text, advice)
    if layer.nodes < layer.depth:
        text = f"with {layer.nodes} thoughts in all no line of them can have depth {layer.depth}"
        yield Finding("note", "idle_setting", f"{place.name}.nodes", text, f"write nodes: {layer.depth} or more")
    if layer.strategy == "best_first" and layer.beam != _default(TreeSearch, "beam"):
        yield _idle(place, "beam", "strategy: best_first")


def _unused_tools(place: Place, layer: Agent) -> Iterator[Finding]:
    if layer.steps == 1:
        text = "in its only turn it may but finish, so that it never uses a tool"
        yield Finding("warning", "unused_tools", f"{place.name}.steps", text, "write steps: 2 or more")


def _empty_memory(place: Place, layer: Memory) -> Iterator[Finding]:
    if not layer.entries and layer.write == "none":
        text = "it holds no notes and writes none, so that it always says the same"
        yield Finding("warning", "empty_memory", place.name, text, "let it write, give it entries, or drop it")


def _high_threshold(place: Place, layer: Retrieve) -> Iterator[Finding]:
    """A threshold that no score reaches; those of words alone have no limit."""
    most = {"hybrid": _MOST_FUSED, "dense": _MOST_COSINE}.get(layer.mode)
    if most is not None and layer.threshold > most:
        text = f"no score in {layer.mode} mode is above {most:.3g}, so that nothing is ever found"
        yield Finding("warning", "no_passages", f"{place.name}.threshold", text, "lower it, or write threshold: 0")


def _endless_rounds(place: Place, layer: Refine) -> Iterator[Finding]:
    """A check that never passes, and a question that is never asked."""
    check = layer.check
    if isinstance(check, Predict):
        closed = options(check, check.fields[-1])
        if closed and not any(map(passes, closed)):
            text = f"the check says {some(closed)}, and only ok or pass ends the rounds"
            yield Finding("warning", "endless_check", f"{place.name}.check", text, "let one of its choices be ok")
    if layer.keep == "last" and layer.question != _default(Refine, "question"):
        yield _idle(place, "question", "keep: last")
    if isinstance(layer.of, Predict) and layer.of.choices and layer.max_tokens != _default(Refine, "max_tokens"):
        yield _idle(place, "max_tokens", "closed choices")


def _same_experts(place: Place, layer: Route) -> Iterator[Finding]:
    first, *others = layer.experts.values()
    if all(other == first for other in others):
        text = "its experts are all the same, so that the gate decides nothing"
        yield Finding("warning", "same_experts", f"{place.name}.experts", text, "tell them apart, or drop the route")


def _idle(place: Place, name: str, cause: str) -> Finding:
    return Finding("note", "idle_setting", f"{place.name}.{name}", f"{name} has no meaning with {cause}", "drop it")


def _default(kind: type[Layer], name: str) -> object:
    return next(item.default for item in fields(kind) if item.name == name)  # type: ignore[arg-type]  # a dataclass


def _is_hot(layer: Layer) -> bool:
    """Whether a layer of its own draws at random."""
    found = layer.parameters(()).get("temperature")
    return isinstance(found, Number) and found.value > 0


def _all_layers(layer: Layer) -> Iterator[Layer]:
    yield layer
    for part in layer.parts.values():
        yield from _all_layers(part)
