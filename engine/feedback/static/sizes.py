"""Sizes: the tokens of what each place of a program asks the model. Without a model they are estimated."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from engine.flows import Flow, Together
from engine.program.cost import tokens
from engine.records import Completion, Count, Plain, Prompt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of one request of a place, and what its reply should have room for.

    `fixed` is what is the same for every example: instruction, choices, the template of the chat; `demos` come on top.
    `rows` is what an example's own inputs add in the mean, `longest` what they add in the longest row, `row`. `others`
    is what other nodes may write into the prompt at most, and `reply` what the model may write.

    `needed` are the fewest tokens of any reply that can be read, `wanted` those of the longest target or choice, which
    stands in `wanted_row`. Demonstrations that are `pooled` are the longest of a pool. A request that is not `vital`
    may fail without failing the example. Of what is known by `estimate` alone all is in `fixed`; `none` is a layer that
    does not say what it costs.
    """

    place: str
    by: Literal["count", "estimate", "none"] = "count"
    fixed: int = 0
    demos: int = 0
    rows: int = 0
    longest: int = 0
    row: str = ""
    others: int = 0
    reply: int = 0
    needed: int = 0
    wanted: int = 0
    wanted_row: str = ""
    pooled: bool = False
    vital: bool = True

    @property
    def sure(self) -> int:
        """What the longest row takes, whatever other nodes write and a pool holds."""
        return self.fixed + (0 if self.pooled else self.demos) + self.longest + self.reply

    @property
    def worst(self) -> int:
        """The most tokens of one request with its reply."""
        return self.fixed + self.demos + self.longest + self.others + self.reply


def estimated(flow: Flow[T]) -> T:
    """The result of a flow of nothing but Count, each prompt taken to have a token for every four characters."""
    result: Any = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration as stop:
            return cast(T, stop.value)
        if isinstance(effect, Together):
            result = [estimated(inner) for inner in effect.flows]
        else:
            assert isinstance(effect, Count)
            result = Completion(count=tokens(_text(effect.prompt)))


def _text(prompt: Prompt) -> str:
    return (
        prompt.text if isinstance(prompt, Plain) else "\n".join([*(turn.text for turn in prompt.messages), prompt.lead])
    )
