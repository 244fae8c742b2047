"""demos: sets of demonstrations, chosen by how likely they make the accepted answers of other train examples.

Demonstrations are labelled (a train example with its target) where the answer comes from the only node, and
bootstrapped otherwise (the node's inputs and outputs in an execution that scored full marks; Khattab 2023, DSPy's
BootstrapFewShot). Candidate sets are drawn balanced over the answers, in several sizes, each under every prompt style,
since style and demonstrations interact; they are compared on a probe of train examples that none of them shows, first a
few, then, for the best quarter and its variants under the program's other choices, more (successive halving; Jamieson &
Talwalkar 2016). From the best set each demonstration is left out once, and dropped where the probe then becomes more
likely. What remains is raced on dev.

Deviation from random search over demonstrations: selection uses the calibrated cross-entropy on train, which orders
sets well on two dozen examples (it did for 27 sets on two tasks), and leaves dev for the race.

A node whose demonstrations are a pool is left as it is: each example finds its own there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.screening import measured
from engine.program.graph import Program
from engine.program.layer import Node
from engine.program.parameters import Choice, Demo, Demos, Parameter
from engine.program.pool import labelled
from engine.records import Example, Trace

_SIZES = (8, 16, 4, 24)
_FIRST_PROBE = 24
_SECOND_PROBE = 72
_MOST_SETS = 16
_PROPOSED = 3
_MOST_CHARS = 6000


@dataclass(frozen=True, slots=True)
class _Set:
    """A set of demonstrations as edits, and its loss on the probe."""

    edits: Mapping[str, Any]
    loss: float = 0.0


class DemosProposer:
    """Proposes up to three sets of demonstrations for each node that takes them."""

    name = "demos"
    prior = 0.2

    def suits(self, program: Program) -> bool:
        """Whether a node takes demonstrations."""
        return any(_takes_a_set(node.parameters().get("demos")) for node in program.nodes)

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The best sets found within the allowance, each with its style."""
        order = [history.train[int(index)] for index in rng.permutation(len(history.train))]
        probe, pool = order[: len(order) // 2], order[len(order) // 2 :]
        solved = yield from _demonstrations(history, pool)
        if not solved or not probe:
            return []
        allowance = history.allowance_calls
        search = _Search(history, probe[: max(_FIRST_PROBE, min(_SECOND_PROBE, allowance // 8))])
        count = max(2, min(_MOST_SETS, allowance // (2 * _FIRST_PROBE * len(search.styles()))))
        drawn = [_draw(history.program, solved, _SIZES[number % len(_SIZES)], rng) for number in range(count)]
        unique = list({str(edits): edits for edits in drawn}.values())
        sets = [_Set({**edits, **style}) for edits in unique for style in search.styles()]
        sets = yield from search.narrowed(sets, _FIRST_PROBE, keep=max(_PROPOSED, len(sets) // 4))
        sets = [variant for found in sets for variant in search.variants(found)]
        sets = yield from search.narrowed(sets, len(search.probe), keep=_PROPOSED)
        pruned = (yield from search.pruned(sets[0], _FIRST_PROBE)) if search.can_prune(sets[0]) else None
        chosen = ([pruned] if pruned else []) + list(sets)
        return [Proposal(found.edits, _note(found.edits)) for found in chosen[:_PROPOSED]]


class _Search:
    """Comparisons of sets on one probe."""

    def __init__(self, history: History, probe: Sequence[Example]) -> None:
        self._history = history
        self.probe = probe

    def styles(self) -> list[dict[str, str]]:
        """The edits that put all nodes into one prompt style, one for each style there is."""
        parameters = self._history.program.parameters
        named = {
            name: value for name, value in parameters.items() if isinstance(value, Choice) and name.endswith(".style")
        }
        options = dict.fromkeys(option for value in named.values() for option in value.options)
        return [dict.fromkeys(named, option) for option in options] or [{}]

    def variants(self, found: _Set) -> list[_Set]:
        """The set itself, and with each other value of each choice that is no prompt style."""
        parameters = self._history.program.parameters
        others = {
            name: value for name, value in parameters.items() if isinstance(value, Choice) and name not in found.edits
        }
        changed = [
            _Set({**found.edits, name: option})
            for name, value in others.items()
            for option in value.options
            if option != value.value
        ]
        return [found, *changed]

    def narrowed(self, sets: Sequence[_Set], examples: int, keep: int) -> Flow[list[_Set]]:
        """The best of the sets on the probe's first examples, best first."""
        measured = yield from together([self.measured(found, self.probe[:examples]) for found in sets])
        return sorted(measured, key=lambda found: found.loss)[:keep]

    def measured(self, found: _Set, probe: Sequence[Example]) -> Flow[_Set]:
        """The set with its loss; where biases are fitted, the loss under the bias that suits it best."""
        history = self._history
        program = history.program.replace(found.edits)
        return _Set(found.edits, (yield from measured(program, probe, history.objective, history.calibrates)).loss)

    def can_prune(self, found: _Set) -> bool:
        """Whether leaving out each demonstration once stays within half the allowance."""
        demos = sum(len(value) for name, value in found.edits.items() if name.endswith(".demos"))
        return demos * _FIRST_PROBE <= self._history.allowance_calls // 2

    def pruned(self, best: _Set, examples: int) -> Flow[_Set | None]:
        """The best set without the demonstrations that make the probe less likely; None where all of them help."""
        probe = self.probe[:examples]
        whole = yield from self.measured(best, probe)
        edits = dict(best.edits)
        for name in [name for name in edits if name.endswith(".demos")]:
            demos = edits[name]
            if len(demos) < 3:
                continue
            rest = [demos[:index] + demos[index + 1 :] for index in range(len(demos))]
            without = yield from together([self.measured(_Set({**edits, name: others}), probe) for others in rest])
            edits[name] = tuple(
                demo for demo, left_out in zip(demos, without, strict=True) if left_out.loss >= whole.loss
            )
            if not edits[name]:
                return None
        if edits == dict(best.edits):
            return None
        return (yield from self.measured(_Set(edits), self.probe))


def _demonstrations(history: History, pool: Sequence[Example]) -> Flow[list[tuple[str, dict[str, Demo]]]]:
    """What can be shown: for each usable example its answer and a demo for each node."""
    nodes = [node for node in history.program.nodes if _takes_a_set(node.parameters().get("demos"))]
    if not nodes:
        return []
    if len(history.program.nodes) == 1 and len(nodes[0].layer.outputs) == 1:
        demos = [(example.target, labelled(nodes[0], example)) for example in pool]
        return [(target, {nodes[0].name: demo}) for target, demo in demos if target and demo]
    traces = yield from history.objective.run(history.program, pool[: max(8, history.allowance_calls // 4)])
    return [(trace.prediction.text, _bootstrapped(nodes, trace)) for trace in traces if trace.score >= 1.0]


def _takes_a_set(parameter: Parameter | None) -> bool:
    return isinstance(parameter, Demos) and not parameter.nearest


def _bootstrapped(nodes: Sequence[Node], trace: Trace) -> dict[str, Demo]:
    wanted = {node.name for node in nodes}
    return {step.node: Demo(dict(step.inputs), dict(step.outputs)) for step in trace.steps if step.node in wanted}


def _draw(program: Program, solved: Sequence[tuple[str, dict[str, Demo]]], size: int, rng: Generator) -> dict[str, Any]:
    """A set of about `size` examples, balanced over the answers as far as they go, in random order."""
    by_answer: dict[str, list[dict[str, Demo]]] = {}
    for index in rng.permutation(len(solved)):
        answer, demos = solved[int(index)]
        by_answer.setdefault(answer, []).append(demos)
    queues = [by_answer[answer] for answer in sorted(by_answer)]
    taken: list[dict[str, Demo]] = []
    length = 0
    while any(queues) and len(taken) < size:
        for index in rng.permutation(len(queues)):
            if queues[int(index)] and len(taken) < size:
                demos = queues[int(index)].pop()
                length += sum(
                    len(text) for demo in demos.values() for text in (*demo.inputs.values(), *demo.outputs.values())
                )
                if taken and length > _MOST_CHARS:
                    queues = [[]]
                    break
                taken.append(demos)
    shuffled = [taken[int(index)] for index in rng.permutation(len(taken))]
    return {f"{name}.demos": tuple(demos[name] for demos in shuffled) for name in shuffled[0]}


def _note(edits: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{len(value)} in {name}" for name, value in edits.items() if name.endswith(".demos"))
    settings = "".join(f", {name} = {value}" for name, value in edits.items() if isinstance(value, str))
    return f"demonstrations: {shown}{settings}"
