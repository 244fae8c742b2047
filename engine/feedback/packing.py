"""Packing: a prompt made of parts, within so many tokens; what matters least is left out first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.flows import Flow, ask
from engine.records import Count, Prompt, Role


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt. One without relevance always stays; of the others the least relevant goes first."""

    text: str
    relevance: float | None = None


def packed(
    parts: Sequence[Part], room_tokens: int, render: Callable[[Sequence[Part]], Prompt], role: Role = "optimizer"
) -> Flow[Prompt]:
    """The prompt of as many parts as fit, in their order, counted exactly."""
    kept = list(range(len(parts)))
    droppable = sorted(
        (index for index in kept if parts[index].relevance is not None),
        key=lambda index: (parts[index].relevance, -index),
    )
    prompt = render([parts[index] for index in kept])
    for index in droppable:
        counted = yield from ask(Count(prompt, role))
        if (counted.count or 0) <= room_tokens:
            break
        kept.remove(index)
        prompt = render([parts[index] for index in kept])
    return prompt
