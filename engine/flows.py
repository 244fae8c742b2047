"""Flows: how pure code asks a model for something without knowing who answers.

A flow is a generator. It yields effects and is resumed with their results:

    Request   one model call                    resumed with its Completion
    Together  several flows at once             resumed with the list of their results, in their order
    Watched   the same, some not to their end   resumed with the list, None in the place of what was given up
    Keep      traces and remarks worth storing  resumed with None

Flows know no model, store, thread or clock. `inference.Runtime` drives them; whatever they ask for together is
computed together. Write `yield from ask(...)` rather than a bare yield: the helpers carry the types.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from engine.records import Completion, Generate, Remark, Request, Trace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Together:
    """Run these flows side by side."""

    flows: "tuple[Flow[Any], ...]"


Drop = Callable[[int, Any], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Watched:
    """Run these flows side by side; after each that ends, `drop` is told its place and result and names places.

    The flows there are given up: they end where they are, and calls that nothing else waits for are cancelled. Those
    that have ended already may be named, too. Calls count as they are asked; tokens when all have ended, those of
    flows that were given up as on average, so that the sum does not depend on when that was.
    """

    flows: "tuple[Flow[Any], ...]"
    drop: Drop


@dataclass(frozen=True, slots=True)
class Keep:
    """Store these: executions, and what feedback said about executions."""

    kept: tuple[Trace | Remark, ...]


Effect = Request | Together | Watched | Keep
Flow = Generator[Effect, Any, T]


def ask(request: Request) -> Flow[Completion]:
    """Ask for one completion."""
    return cast(Completion, (yield request))


def together(flows: "Sequence[Flow[T]]") -> Flow[list[T]]:
    """Run flows side by side and return their results in the order given."""
    return cast("list[T]", (yield Together(tuple(flows)))) if flows else []


def while_useful(flows: "Sequence[Flow[T]]", drop: Callable[[int, T], Iterable[int]]) -> "Flow[list[T | None]]":
    """Run flows side by side, each for as long as it is of use, and return their results in the order given.

    `drop(place, result)` is called for each that ends, in the order in which they do, and returns the places of those
    that are of no use, whether they have ended or not. These have None for a result, so no flow itself should. What
    has been named in the end must not depend on the order in which flows end; that is for the caller to see to.
    """
    return cast("list[T | None]", (yield Watched(tuple(flows), drop))) if flows else []


def keep(*kept: Trace | Remark) -> Flow[None]:
    """Have traces and remarks stored. A remark belongs to the trace of the same run, program and example."""
    yield Keep(kept)


def observed(flow: Flow[T], done: list[Completion]) -> Flow[T]:
    """Run `flow` unchanged and append the completion of every call it makes, sub-flows included, to `done`.

    Calls of sub-flows that were given up are left out, since how many they had made by then is chance.
    """
    result: Any = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration as stop:
            return cast(T, stop.value)
        if isinstance(effect, Together | Watched):
            inner: list[list[Completion]] = [[] for _ in effect.flows]
            followed = tuple(observed(child, found) for child, found in zip(effect.flows, inner, strict=True))
            result = yield replace(effect, flows=followed)
            for found, ended in zip(inner, result, strict=True):
                done.extend(found if isinstance(effect, Together) or ended is not None else ())
        else:
            result = yield effect
            if isinstance(result, Completion) and result.key:
                done.append(result)


def varied(flow: Flow[T], number: int) -> Flow[T]:
    """Run `flow` with draws of its own: whatever it samples is drawn independently of the same flow's other numbers."""
    result: Any = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration as stop:
            return cast(T, stop.value)
        if isinstance(effect, Together | Watched):
            effect = replace(effect, flows=tuple(varied(child, number) for child in effect.flows))
        elif isinstance(effect, Generate) and effect.temperature > 0:
            effect = replace(effect, sample=effect.sample * _FLOWS + number + 1)
        result = yield effect


_FLOWS = 1_000_003  # more than are ever varied side by side, so that varied flows of varied flows stay apart
