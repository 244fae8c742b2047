"""Thoughts: lines of them as the states of a tree, how it grows, and two orders in which to search it.

A state is what was thought so far, a line each. It grows by what a layer proposes and is valued by what a judge says;
everything that can be asked together is. Proposals that fail, say nothing, repeat a thought of their own line or lead
to a state that was reached before are dropped unjudged, and so is a state that the judge could not value. A proposal's
step holds its judgement: the value, and the call it came from behind those that wrote the thought.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.flows import Flow, together, varied
from engine.program.layer import Layer, perform
from engine.program.preference import Judged
from engine.records import Step
from engine.tasks.answers import normalized

THOUGHTS = "thoughts"

Judge = Callable[[Mapping[str, str]], Flow[Judged]]


@dataclass(frozen=True, slots=True)
class State:
    """Thoughts as they are read, how many of them were proposed, and their value; `number` counts up from the root."""

    thoughts: str
    level: int = 0
    number: int = 0
    value: float | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts the best first, and of equals the first made."""
        return -(self.value or 0.0), self.number


@dataclass(slots=True)
class Tree:
    """The search of one example: what it is made with, every proposal so far, and the states that were reached.

    `branch` proposals are drawn from a state and `nodes` in all, at most. An input called `thoughts` is the root.
    """

    propose: Layer
    judge: Judge
    branch: int
    nodes: int
    inputs: Mapping[str, str]
    steps: list[Step] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)

    @property
    def root(self) -> State:
        """Where the search begins."""
        return State(self.inputs.get(THOUGHTS, ""))

    @property
    def room(self) -> int:
        """How many more proposals may be drawn."""
        return self.nodes - len(self.steps)

    def shown(self, thoughts: str) -> dict[str, str]:
        """The fields that a part reads."""
        return {**self.inputs, THOUGHTS: thoughts}

    def grow(self, parents: Sequence[State]) -> Flow[list[State]]:
        """New states from states of one level, as many as there is room for, in the order in which they were drawn."""
        level, made_before = parents[0].level + 1, len(self.steps)
        draws = [(parent, number) for number in range(self.branch) for parent in parents][: self.room]
        first = 1 + sum(step.node.startswith(f"propose {level}.") for step in self.steps)
        drawn = yield from together(
            [
                varied(perform(f"propose {level}.{place}", self.propose, self.shown(parent.thoughts)), number)
                for place, (parent, number) in enumerate(draws, first)
            ]
        )
        new = {place: thoughts for place, step in enumerate(drawn) if (thoughts := self._reach(step))}
        judged = yield from together([self.judge(self.shown(thoughts)) for thoughts in new.values()])
        verdicts = dict(zip(new, judged, strict=True))
        for place, step in enumerate(drawn):
            verdict = verdicts.get(place, Judged())
            self.steps.append(replace(step, value=verdict.log_odds, calls=(*step.calls, *verdict.calls)))
        return [
            State(thoughts, level, made_before + place + 1, verdicts[place].log_odds)
            for place, thoughts in new.items()
            if verdicts[place].log_odds is not None
        ]

    def _reach(self, step: Step) -> str:
        """The thoughts after a proposal; empty if it is to be dropped."""
        before, thought = step.inputs[THOUGHTS], thought_of(step, self.propose)
        thoughts = joined(before, thought)
        if not thought or normalized(thought) in map(normalized, before.splitlines()):
            return ""
        if normalized(thoughts) in self.reached:
            return ""
        self.reached.add(normalized(thoughts))
        return thoughts


def beam(tree: Tree, depth: int, width: int) -> Flow[State]:
    """Continue the best `width` states of each level; return the best of the last level that has any."""
    kept = [tree.root]
    for _ in range(depth):
        grown = yield from tree.grow(kept)
        if not grown:
            break
        kept = sorted(grown, key=lambda state: state.rank)[:width]
    return kept[0]


def best_first(tree: Tree, depth: int) -> Flow[State]:
    """Continue the best open state until it is deep enough or there is no room; return it.

    Where none is open any more, return the best of those that led nowhere.
    """
    best = tree.root
    tried: list[State] = []
    waiting: list[tuple[tuple[float, int], State]] = []
    while best.level < depth and tree.room > 0:
        for state in (yield from tree.grow([best])):
            heapq.heappush(waiting, (state.rank, state))
        if not waiting:
            return min(tried, key=lambda state: state.rank, default=best)
        best = heapq.heappop(waiting)[1]
        tried.append(best)
    return best


def line_of(steps: Sequence[Step], propose: Layer, thoughts: str) -> list[Step]:
    """The proposals that led to these thoughts, the last first."""
    made = {joined(step.inputs[THOUGHTS], thought_of(step, propose)): step for step in steps if step.value is not None}
    line: list[Step] = []
    while thoughts in made:
        line.append(made[thoughts])
        thoughts = line[-1].inputs[THOUGHTS]
    return line


def thought_of(step: Step, propose: Layer) -> str:
    """What a proposal says, without space around it; empty if it failed."""
    return "" if step.error is not None else step.outputs.get(propose.outputs[-1], "").strip()


def joined(thoughts: str, thought: str) -> str:
    """Thoughts with one more."""
    return "\n".join(filter(None, (thoughts, thought)))


def with_thoughts(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of fields with `thoughts` among them: where it stands already, or else last."""
    return names if THOUGHTS in names else (*names, THOUGHTS)
