"""TreeSearch: thoughts are proposed, judged and continued, and the best line of them is answered from. Beam search.

Tree of Thoughts (Yao 2023, section 3): a state is a problem with the thoughts so far, `propose` draws the next thought
of a state, and a prompted judge says how good a state is. `beam` keeps the best states of each level (the paper's
breadth-first search); `best_first` always continues the best state that is open (its depth-first search, with a heap
instead of a threshold to turn back at).

Deviations: a state's value is the log-odds of yes over no to one question, a single scored request, instead of a
sampled verdict; a state that was reached before, or a thought that repeats one of its own line, is dropped unjudged;
and a part of its own gives the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from engine.flows import Flow, together
from engine.program.composite import Composite, part_outputs, read_part
from engine.program.cost import Cost, tokens
from engine.program.critique import Gradients, critique
from engine.program.layer import Layer, LayerResult, perform
from engine.program.layers.predict import Style
from engine.program.parameters import Choice, Number, Parameter, Text
from engine.program.preference import Judged, rightness
from engine.program.thoughts import THOUGHTS, Tree, beam, best_first, line_of, with_thoughts
from engine.records import Step


@dataclass(frozen=True, slots=True)
class TreeSearch(Composite):
    """`propose` writes one next thought and `answer` the result; both read the inputs and `thoughts`, a line each.

    `depth` is how many thoughts a line has, `branch` how many are drawn from a state, `beam` how many states of a level
    are continued (with `beam`), `nodes` how many thoughts are drawn at most, and `value` the question that judges a
    state. `propose` should sample: at temperature 0 all that it draws from a state is the same. An input called
    `thoughts` is where the search begins.
    """

    propose: Layer
    answer: Layer
    depth: int = 3
    branch: int = 3
    beam: int = 2
    strategy: Literal["beam", "best_first"] = "beam"
    nodes: int = 24
    value: str = "Do these thoughts lead to a right answer?"
    style: Style = "chat"

    kind: ClassVar[str] = "tree_search"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of the answer."""
        return self.answer.outputs

    @property
    def summary(self) -> str:
        kept = f"beam {self.beam}" if self.strategy == "beam" else "best first"
        return f"{kept} · depth {self.depth} · branch {self.branch} · {self.nodes} nodes"

    def part_inputs(self, part: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """The inputs of the whole, and the thoughts so far."""
        return with_thoughts(inputs)

    def part_sizes(self, part: str, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """The inputs of the whole, and the longest line of thoughts."""
        thought = self.propose.cost(sizes).gives.get(self.propose.outputs[-1], 0)
        return {**sizes, THOUGHTS: sizes.get(THOUGHTS, 0) + self.depth * thought}

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """The question that judges a state and its style, the shape of the tree, and how it is searched."""
        return {
            "value": Text(self.value),
            "style": Choice(self.style, ("chat", "plain")),
            "strategy": Choice(self.strategy, ("beam", "best_first")),
            "depth": Number(self.depth, 1, 16, whole=True),
            "branch": Number(self.branch, 1, 32, whole=True),
            "beam": Number(self.beam, 1, 32, whole=True),
            "nodes": Number(self.nodes, 1, 1000, whole=True),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Search, then answer from the best line of thoughts, be it empty."""
        tree = Tree(self.propose, self._judge, self.branch, self.nodes, inputs)
        depth = self.depth
        searching = beam(tree, depth, self.beam) if self.strategy == "beam" else best_first(tree, depth)
        best = yield from searching
        answer = yield from perform("answer", self.answer, tree.shown(best.thoughts))
        steps = (*tree.steps, answer)
        if answer.error is not None:
            return LayerResult(steps=steps, value=best.value, error=f"answer: {answer.error}")
        return LayerResult(answer.outputs, answer.loglikelihoods, answer.probabilities, steps=steps, value=best.value)

    def _judge(self, shown: Mapping[str, str]) -> Flow[Judged]:
        return rightness(shown, self.value, self.style == "chat")

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """The chain rule along the line that was answered from, the last thought first, and a critique of the judge."""
        *proposed, answer = step.steps
        line = line_of(proposed, self.propose, answer.inputs[THOUGHTS])
        if not line:
            return (yield from self.part_backward("answer", answer, said, wanted))
        found = Gradients()
        of_answer = self.part_backward("answer", answer, said, with_thoughts(wanted))
        for passed in (yield from together([of_answer, self._judge_backward(answer, line[0], said)])):
            found.add(passed)
        for number, inner in enumerate(line, 1):
            heard = found.inputs.pop(THOUGHTS, [])
            mine = with_thoughts(wanted) if number < len(line) else wanted
            if heard:
                found.add((yield from self.part_backward("propose", inner, heard, mine)))
        return found

    def _judge_backward(self, answer: Step, last: Step, said: Sequence[str]) -> Flow[Gradients]:
        """What should change in the question by which the thoughts were preferred that led to this answer."""
        verdict = "yes" if (last.value or 0.0) > 0 else "no"
        judged = Step("value", answer.inputs, {"verdict": verdict})
        heard = [f"These thoughts were preferred to others, and of the answer was said: {text}" for text in said]
        advice = yield from critique(judged, heard, "instruction", self.value)
        return Gradients.of(("value",), (advice,))

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """As many proposals and judgements as can be, then the answer, each with the longest line of thoughts."""
        drawn = self.nodes
        if self.strategy == "beam":
            drawn = min(drawn, self.branch * (1 + (self.depth - 1) * self.beam))
        given = self.part_sizes("answer", inputs)
        judged = Cost(1, tokens(self.value) + sum(given.values()) + 2)
        last = self.answer.cost(given)
        return replace((self.propose.cost(given) + judged) * drawn + last, gives=last.gives)

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The outputs that the answer declares."""
        return part_outputs(spec.get("answer"), name)

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """Both parts read the thoughts too; `propose` writes a `thought` where it names no other field."""
        known = with_thoughts(inputs)
        return {
            "propose": read_part(mapping.get("propose"), "thought", known, ("propose",)),
            "answer": read_part(mapping.get("answer"), output, known, ("answer",)),
        }
