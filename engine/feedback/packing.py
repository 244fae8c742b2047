"""Packing: an ordered list of parts fitted into a prompt of so many tokens, the least relevant left out first.

Lengths are counted by the model that will read the prompt, over the whole of it: exactly where the model is local, as
its server's estimate where it is not. A count costs no call of the model, and few are made: one where everything fits,
else as many as a binary search takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.flows import Flow, ask
from engine.records import Count, Prompt, Role


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt. One without a `relevance` must stay; where one was left out stands its `instead`."""

    text: str
    relevance: float | None = None
    instead: str = ""


Render = Callable[[Sequence[Part]], Prompt]


@dataclass(frozen=True, slots=True)
class Packed:
    """A prompt, how long it is, and which of the parts stand in it, by their places in the order given."""

    prompt: Prompt
    tokens: int
    kept: tuple[int, ...]


def packed(parts: Sequence[Part], room_tokens: int, render: Render, role: Role = "optimizer") -> Flow[Prompt]:
    """The prompt that `fitted` finds."""
    return (yield from fitted(parts, room_tokens, render, role)).prompt


def fitted(parts: Sequence[Part], room_tokens: int, render: Render, role: Role = "optimizer") -> Flow[Packed]:
    """The prompt that `render` makes of the parts, in their order, in at most `room_tokens` tokens.

    The least relevant parts are left out first, of equals the later one. What is kept fits; together with the most
    relevant of what was left out it would not. Where what must stay is too long by itself, all of it, with what stands
    for other parts, is cut at its end to the same number of characters; with one character more it would not fit.

    Only where `render` needs more room even for no part at all, the prompt is longer than the room. It is given no
    part that is empty.
    """
    fitting = _Fitting(parts, render, role)
    everything = yield from fitting.with_most(len(fitting.optional))
    if everything.tokens <= room_tokens:
        return everything
    needed = yield from fitting.with_most(0)
    if needed.tokens <= room_tokens:
        return (yield from _largest(fitting.with_most, needed, len(fitting.optional), room_tokens))
    nothing = yield from fitting.cut(0)
    if nothing.tokens > room_tokens:
        return nothing
    return (yield from _largest(fitting.cut, nothing, fitting.longest, room_tokens))


class _Fitting:
    """The prompts that can be made of some parts."""

    def __init__(self, parts: Sequence[Part], render: Render, role: Role) -> None:
        self._parts, self._render, self._role = parts, render, role
        ranked = [(-part.relevance, place) for place, part in enumerate(parts) if part.relevance is not None]
        self.optional = [place for _, place in sorted(ranked)]
        self.longest = max((len(part.text) for part in self._standing(0)), default=0)

    def with_most(self, count: int) -> Flow[Packed]:
        """What must stay and the `count` most relevant other parts."""
        return self._counted(self._standing(count), count)

    def cut(self, chars: int) -> Flow[Packed]:
        """What must stay alone, each text cut to `chars` characters."""
        return self._counted([replace(part, text=part.text[:chars]) for part in self._standing(0)], 0)

    def _standing(self, count: int) -> list[Part]:
        out = set(self.optional[count:])
        return [replace(part, text=part.instead) if place in out else part for place, part in enumerate(self._parts)]

    def _counted(self, standing: Sequence[Part], count: int) -> Flow[Packed]:
        prompt = self._render([part for part in standing if part.text])
        completion = yield from ask(Count(prompt, self._role))
        assert completion.count is not None  # a count always is
        out = set(self.optional[count:])
        return Packed(prompt, completion.count, tuple(place for place in range(len(standing)) if place not in out))


def _largest(made: Callable[[int], Flow[Packed]], fitting: Packed, beyond: int, room_tokens: int) -> Flow[Packed]:
    """What is made of a number that fits and whose next does not: 0 is known to fit, `beyond` not to.

    That holds even where a longer text has fewer tokens, as can happen at a seam.
    """
    low = 0
    while beyond - low > 1:
        middle = (low + beyond) // 2
        found = yield from made(middle)
        if found.tokens <= room_tokens:
            low, fitting = middle, found
        else:
            beyond = middle
    return fitting
