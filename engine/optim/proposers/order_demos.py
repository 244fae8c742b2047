"""order_demos: the incumbent's demonstrations in another order (Lu 2022, "Fantastically Ordered Prompts").

Small models lean towards what stands last, so the order of the same demonstrations can be worth many points. Tried are
the order reversed, sorted by answer, dealt out so that answers alternate, and random ones. Deviation: theirs ranks
orders by the entropy of what the model says on a probing set that it writes itself; here train tells how likely each
order makes the accepted answers.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.random import Generator

from engine.flows import Flow
from engine.optim.history import History, Proposal
from engine.optim.screening import calls_each, ranked
from engine.program.graph import Program
from engine.program.parameters import Demo, Demos

_ROWS = 48
_FEWEST_ROWS = 12
_MOST_ORDERS = 12
_PROPOSED = 2

Rule = Callable[[Sequence[Demo]], tuple[Demo, ...]]


class OrderDemosProposer:
    """Proposes the two best orders, where train likes them better than the incumbent's."""

    name = "order_demos"
    prior = 0.03

    def suits(self, program: Program) -> bool:
        """Whether a set of at least two demonstrations is shown."""
        return bool(_sets(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Orders of all sets alike, measured on as many rows as the allowance covers."""
        sets = _sets(history.program)
        covered = history.allowance_calls // calls_each(history.program, history.calibrates)
        orders = _orders(sets, min(_MOST_ORDERS, covered // _FEWEST_ROWS - 1), rng)
        if not orders:
            return []
        found = yield from ranked(history, [{}, *orders], min(_ROWS, covered // (1 + len(orders))))
        incumbent = next(one.loss for one in found if not one.edits)
        better = [one.edits for one in found if one.loss < incumbent]
        return [Proposal(edits, f"{', '.join(edits)}: another order") for edits in better[:_PROPOSED]]


def _sets(program: Program) -> dict[str, tuple[Demo, ...]]:
    """What can be put in order: demonstrations that are not a pool."""
    return {
        name: value.value
        for name, value in program.parameters.items()
        if isinstance(value, Demos) and not value.nearest and len(value.value) > 1
    }


def _orders(sets: Mapping[str, tuple[Demo, ...]], many: int, rng: Generator) -> list[dict[str, Any]]:
    """At most so many orders, none of them the one there is; one rule for all sets."""
    rules: Iterable[Rule] = itertools.chain((_reversed, _by_answer, _dealt), itertools.repeat(partial(_shuffled, rng)))
    orders = ({name: rule(demos) for name, demos in sets.items()} for rule in rules)
    tried = list(itertools.islice(orders, max(0, many)))
    return [one for number, one in enumerate(tried) if one != sets and one not in tried[:number]]


def _reversed(demos: Sequence[Demo]) -> tuple[Demo, ...]:
    return tuple(demos[::-1])


def _by_answer(demos: Sequence[Demo]) -> tuple[Demo, ...]:
    return tuple(sorted(demos, key=_answer))


def _dealt(demos: Sequence[Demo]) -> tuple[Demo, ...]:
    """One of each answer, then a second of each that has one, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for demo in demos:
        turns.append(seen[_answer(demo)])
        seen[_answer(demo)] += 1
    ranked = sorted(range(len(demos)), key=lambda index: (turns[index], _answer(demos[index])))
    return tuple(demos[index] for index in ranked)


def _shuffled(rng: Generator, demos: Sequence[Demo]) -> tuple[Demo, ...]:
    return tuple(demos[int(index)] for index in rng.permutation(len(demos)))


def _answer(demo: Demo) -> str:
    """The main field."""
    return list(demo.outputs.values())[-1]
