"""A backend that answers one call at a time, in an order of its own: what a runtime does must not depend on it."""

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

from engine.flows import Flow
from engine.inference.runtime import Runtime
from engine.inference.scripted import Script, ScriptedBackend
from engine.inference.service import Prepared, Reply
from engine.inference.usage import Usage
from engine.store.store import Store

Pick = Callable[[Sequence[str]], int]


class Shuffled(ScriptedBackend):
    """`pick` says which call is answered next, from the prompts in line; an answer comes while the last is seen to.

    With the chance `late` a call is answered although it was cancelled, as one is whose answer is on its way by then.
    """

    def __init__(self, script: Script, pick: int | Pick, late: float = 0.0) -> None:
        """`pick` may be a seed: then the order is random."""
        super().__init__(script)
        self._chance = random.Random(pick if isinstance(pick, int) else 0)
        self._pick: Pick = (lambda line: self._chance.randrange(len(line))) if isinstance(pick, int) else pick
        self._late = late
        self._line: list[tuple[str, Prepared, Reply]] = []
        self._keys: dict[str, str] = {}
        self.answered: list[str] = []
        self.cancelled: list[str] = []

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        self._line += [(key, prepared, reply) for key, prepared in asked]
        self._keys |= {prepared.prompt: key for key, prepared in asked}
        self.answer_one()

    def cancel(self, keys: Collection[str] | None = None) -> None:
        for item in list(self._line):
            if (keys is None or item[0] in keys) and self._chance.random() >= self._late:
                self._line.remove(item)
                self.cancelled.append(item[1].prompt)

    def run(self, flow: Flow[Any], store: Store | None = None) -> tuple[Any, Usage]:
        """What a flow gives with this backend, and what that took."""
        with Runtime({"task": self}, store or Store(":memory:")) as runtime:
            return runtime.run(flow, watch=lambda usage, open_requests: self.answer_one()), runtime.usage.copy()

    def keys_of(self, prompts: Sequence[str]) -> list[str]:
        """The keys under which these prompts were asked."""
        return [self._keys[prompt] for prompt in prompts]

    def answer_one(self) -> None:
        if self._line:
            place = self._pick([prepared.prompt for _, prepared, _ in self._line])
            key, prepared, reply = self._line.pop(place)
            self.answered.append(prepared.prompt)
            super().submit([(key, prepared)], reply)
