"""Refine: a draft, then rounds of critique and revision. A residual block in time, its weights the two instructions.

Self-Refine (Madaan 2023, algorithm 1). Deviation: a revision is kept only where the model prefers it (`keep:
likelihood`), since small models often revise for the worse. With a layer that checks each text, such as one that runs
tests, it is Reflexion (Shinn 2023, algorithm 1): what the check said is the evidence for the critique, and the last
`memory` critiques stand before the critic and the reviser; with `keep: last` every critique is of the last text, as
theirs is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from engine.flows import Flow
from engine.program.composite import Composite, part_outputs, read_part
from engine.program.cost import Cost, tokens
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, perform
from engine.program.layers.predict import Predict, Style
from engine.program.parameters import Choice, Number, Parameter, Text
from engine.program.preference import BETTER, preferred
from engine.records import Step

Keep = Literal["likelihood", "last"]

_CRITIQUE_TOKENS = 64
_PASSES = ("ok", "okay", "pass", "passes", "passed")


@dataclass(frozen=True, slots=True)
class Refine(Composite):
    """The main output of `of`, revised at most `rounds` times, each time by at most `max_tokens`.

    It ends when `check` passes a text: the first word of what it says is `ok` or `pass`. Without a check it ends when a
    critique finds nothing (it is blank or says so in the same way) or a revision is not better than what it revised.
    It always ends with a revision that has been seen before, or when a critique or a revision fails; what was kept so
    far is the answer then. A check that fails says by its error what is wrong.

    A typed output stays of its type, and closed choices are chosen among again. The value of a `revise` step is the
    log-odds, in nats, that it is better than what was kept before.
    """

    of: Layer
    check: Layer | None = None
    critique: str = "In one sentence, say what is wrong with the answer. If nothing is wrong, say ok."
    revise: str = "Write a better answer that heeds the critique. Write the answer alone."
    rounds: int = 2
    keep: Keep = "likelihood"
    memory: int = 3
    question: str = BETTER
    style: Style = "chat"
    max_tokens: int = 256

    kind: ClassVar[str] = "refine"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The main output of `of` alone: whatever else it wrote belongs to the draft."""
        return self.of.outputs[-1:]

    @property
    def summary(self) -> str:
        rounds = f"up to {self.rounds} round{'s' * (self.rounds != 1)}"
        return f"{rounds}, keeps {'the better' if self.keep == 'likelihood' else 'the last'}"

    def part_inputs(self, part: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """The check also reads the answer."""
        return inputs if part == "of" else (*inputs, _free(self.outputs[0], inputs))

    def part_sizes(self, part: str, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """The check also reads the draft or a revision, whichever may be longer."""
        if part == "of":
            return sizes
        main = self.outputs[0]
        answer = max(self.of.cost(sizes).gives.get(main, 0), int(self.max_tokens))
        return {**sizes, _free(main, tuple(sizes)): answer}

    def own_parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """Everything but the parts."""
        return {
            "critique": Text(self.critique),
            "revise": Text(self.revise),
            "rounds": Number(self.rounds, 1, 8, whole=True),
            "keep": Choice(self.keep, ("likelihood", "last")),
            "memory": Number(self.memory, 1, 8, whole=True),
            "question": Text(self.question),
            "style": Choice(self.style, ("chat", "plain")),
            "max_tokens": Number(self.max_tokens, 1, 8192, whole=True),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """Draft, then check, critique and revise until nothing is left to do."""
        main = self.outputs[0]
        answer = _free(main, inputs)
        draft = yield from perform("of", self.of, inputs)
        steps = [draft]
        if draft.error is not None:
            return LayerResult(steps=(draft,), error=f"of: {draft.error}")
        kept = draft.outputs[main]
        evidence, passed = yield from self._checked(1, {**inputs, answer: kept}, steps)
        seen: list[str] = [kept]
        critiques: list[str] = []
        for number in range(1, int(self.rounds) + 1):
            if passed:
                break
            shown = {**inputs, answer: kept}
            known = {"check": evidence, "earlier_critiques": "\n".join(critiques[-int(self.memory) :])}
            asked = shown | {_free(name, shown): text for name, text in known.items() if text}
            critic = yield from perform(f"critique {number}", self._critic(), asked)
            steps.append(critic)
            said = critic.outputs.get("critique", "").strip()
            if not said or (self.check is None and passes(said)):
                break
            critiques += [said] if said not in critiques else []
            about = {_free("critique", shown): "\n".join(critiques[-int(self.memory) :])}
            revision = yield from perform(f"revise {number}", self._reviser(), {**shown, **about})
            place = len(steps)
            steps.append(revision)
            text = revision.outputs.get(main, "")
            if not text.strip() or text in seen:
                break
            seen.append(text)
            found, passed = yield from self._checked(number + 1, {**inputs, answer: text}, steps)
            better = passed or self.keep == "last"
            if not better:
                judged = yield from preferred(inputs, answer, kept, text, self.question, self.style == "chat")
                steps[place] = judged.of(revision)
                better = judged.log_odds is not None and judged.log_odds > 0
            if better:
                kept, evidence = text, found
            elif self.check is None:
                break
        return LayerResult({main: kept}, steps=tuple(steps))

    def _checked(self, number: int, shown: Mapping[str, str], steps: list[Step]) -> Flow[tuple[str, bool]]:
        """What the check says of a text, and whether it passes; nothing where there is no check."""
        if self.check is None:
            return "", False
        step = yield from perform(f"check {number}", self.check, shown)
        steps.append(step)
        return step.error or step.outputs[self.check.outputs[-1]], self._passed(step)

    def _passed(self, step: Step) -> bool:
        assert self.check is not None
        return step.error is None and passes(step.outputs[self.check.outputs[-1]])

    def _critic(self) -> Predict:
        return Predict(self.critique, "critique", style=self.style, max_tokens=_CRITIQUE_TOKENS, stop=("\n",))

    def _reviser(self) -> Predict:
        if not isinstance(self.of, Predict):
            return Predict(self.revise, self.outputs, style=self.style, max_tokens=self.max_tokens)
        if self.of.choices:
            listed = self.of.list_choices
            return Predict(self.revise, self.outputs, self.of.choices, style=self.style, list_choices=listed)
        typed, stop = self.of.fields[-1:], self.of.stop
        return Predict(self.revise, typed, style=self.style, max_tokens=self.max_tokens, stop=stop)

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """The chain rule along what the kept text was made from.

        What was said of a revision is said of `revise`; what that says of its critique is said of `critique`, and what
        it says of the text that it revised is said of the step that wrote that, back to the draft (`of`). A critique of
        the kept text that led to nothing better hears what was said, and so does a check that passed it; a check that
        found fault is taken to be right. A revision that was not kept, and the question by which it was not, are left
        in peace.
        """
        main = self.outputs[0]
        answer = _free(main, step.steps[0].inputs)
        writers = {inner.outputs.get(main): inner for inner in reversed(step.steps) if _writes(inner)}
        writer = writers.get(step.outputs.get(main), step.steps[0])
        found = Gradients()
        critics = [inner for inner in step.steps if inner.node.startswith("critique ")]
        if critics and critics[-1].inputs[answer] == step.outputs[main]:
            yield from self._told("critique", critics[-1], said, (), found)
        checks = [inner for inner in step.steps if inner.node.startswith("check ") and self._passed(inner)]
        if checks:
            found.add((yield from self.part_backward("check", checks[-1], said, ())))
        heard = list(said)
        while writer.node != "of" and heard:
            about = list(writer.inputs)[-1]
            passed = yield from self._told("revise", writer, heard, (answer, about, *wanted), found)
            found.add(Gradients(inputs={name: passed[name] for name in wanted if name in passed}))
            critic = next(inner for inner in critics if inner.node.split()[1] == writer.node.split()[1])
            if about in passed:
                yield from self._told("critique", critic, passed[about], (), found)
            heard = passed.get(answer, [])
            writer = writers[writer.inputs[answer]]
        if heard:
            found.add((yield from self.part_backward("of", writer, heard, wanted)))
        return found

    def _told(
        self,
        name: Literal["critique", "revise"],
        step: Step,
        said: Sequence[str],
        wanted: tuple[str, ...],
        to: Gradients,
    ) -> Flow[dict[str, list[str]]]:
        """Have one of the two instructions hear what was said of its step; returns what it says of its inputs."""
        asked = self._critic() if name == "critique" else self._reviser()
        passed = yield from asked.backward(step, said, wanted)
        to.add(Gradients({name: passed.parameters.get("instruction", [])}))
        return passed.inputs

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """All rounds, each with a revision as long as it may be."""
        main = self.outputs[0]
        draft = self.of.cost(inputs)
        shown = self.part_sizes("check", inputs)
        answer = shown[_free(main, tuple(inputs))]
        check = self.check.cost(shown) if self.check else Cost()
        evidence = check.gives.get(self.check.outputs[-1], 0) if self.check else 0
        critiques = _CRITIQUE_TOKENS * int(self.memory)
        critic = self._critic().cost({**shown, "check": evidence, "earlier_critiques": critiques})
        reviser = self._reviser().cost({**shown, "critique": critiques})
        judged = Cost(2, 2 * (tokens(self.question) + sum(inputs.values()) + 2 * answer))
        a_round = critic + reviser + check + (judged if self.keep == "likelihood" else Cost())
        total = draft + check + a_round * int(self.rounds)
        return replace(total, gives={main: max(draft.gives.get(main, 0), reviser.gives.get(main, 0))})

    @classmethod
    def declared_outputs(cls, spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """The main output that the draft declares."""
        return part_outputs(spec.get("of"), name)[-1:]

    @classmethod
    def read_parts(cls, mapping: Mapping[str, Any], output: str, inputs: tuple[str, ...]) -> dict[str, Any]:
        """The draft reads the inputs, and the check also the answer; it writes a field `verdict` if it names none."""
        parts = {"of": read_part(mapping.get("of"), output, inputs, ("of",))}
        if mapping.get("check") is not None:
            shown = (*inputs, _free(output, inputs))
            parts["check"] = read_part(mapping["check"], "verdict", shown, ("check",))
        return parts


def _writes(step: Step) -> bool:
    return step.node == "of" or step.node.startswith("revise ")


def _free(name: str, taken: Mapping[str, object] | tuple[str, ...]) -> str:
    """The name of a field beside others, `draft_…` where one of them has the name already."""
    return name if name not in taken else _free(f"draft_{name}", taken)


def passes(verdict: str) -> bool:
    """Whether what a check says begins with the word that nothing is wrong."""
    first = verdict.split(maxsplit=1)[:1]
    return bool(first) and first[0].casefold().strip(".,:;!*\"'()") in _PASSES
