"""protegi: a beam of prompts, each edited along reasons for its mistakes (ProTeGi; Pryzant 2023, algorithms 1 and 2).

The parents are the incumbent and the best other candidates of the run on dev. Each is executed on a minibatch. Of its
failures groups of four are drawn, and of each group the model says in a sentence why the instruction led to it: a
textual gradient. Along each gradient the instruction is edited once, and every edit is said in other words once (the
Monte Carlo successors). Up to eight successors of each parent are compared on train rows outside the minibatch, which
is the bandit step of the paper, by successive halving, one of the methods that it tries (section 2.2.2). The best are
proposed, each as an edit of its own parent; the race on dev makes the next beam of them.

The text that is edited is one that acted in a failure, the same for all parents; where there are several, they take
turns.

Deviations: gradients are drawn two a group, not asked for as a list, and an edit is not shown the failures again, only
the reason, both so that a very small model can do it; requests show solved ones of other tasks. Successors are compared
by the loss with which the run screens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, together
from engine.optim.history import Candidate, History, Proposal
from engine.optim.minibatch import failures
from engine.optim.narrowing import FEWEST_ROWS, calls_a_row, narrowed
from engine.optim.words.rewording import reworded
from engine.optim.words.telling import on_a_line
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.variants import alike_but_for
from engine.optim.words.worked import MENDED
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.places import steps_of
from engine.records import Trace

_BEAM = 4
_ROWS = 24  # as in the minibatch that other proposers learn from, so that what is asked together is asked once
_GROUP = 4
_GRADIENTS_A_GROUP = 2
_FEWEST_GRADIENTS, _MOST_GRADIENTS = 2, 4
_SPARE = 1  # more is drawn than is used: some of what a small model writes is of no use
_CALLS_A_GRADIENT = 5  # at most: half of three for its group, two for the edit, one for the edit in other words
_CALLS_A_PARENT = 150  # below that a parent's successors could hardly be told apart
_PROPOSED = 4
_MOST_CHARS = 300
_MOST_TOKENS = 72


class ProTeGiProposer:
    """Proposes the best successors of the beam, up to four."""

    name = "protegi"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Successors of the beam's members, best first; none where the beam makes no mistakes."""
        plan = _Plan.of(history)
        rows = history.drawn[: plan.rows]
        executed = yield from together([history.objective.run(parent.program, rows) for parent in plan.beam])
        wrong = [failures(traces) for traces in executed]
        names = [name for name in texts_of(history.program) if _acted(name, [trace for one in wrong for trace in one])]
        if not names:
            return []
        name = next_text(history, self.name, names, rng)
        expanded = yield from together(
            [
                _successors(history, parent, name, traces, plan.gradients, generator)
                for parent, traces, generator in zip(plan.beam, wrong, rng.spawn(len(wrong)), strict=True)
                if name in parent.program.parameters
            ]
        )
        found = [proposal for proposals in expanded for proposal in proposals]
        return (yield from narrowed(history, found, _PROPOSED, plan.screening, history.drawn[plan.rows :]))


@dataclass(frozen=True, slots=True)
class _Plan:
    """The beam, the rows of its minibatch, the gradients of each parent, and the calls left for the bandit step."""

    beam: Sequence[Candidate]
    rows: int
    gradients: int
    screening: int

    @classmethod
    def of(cls, history: History) -> "_Plan":
        """As wide as the allowance lets it be, the incumbent alone at the least."""
        calls = history.allowance_calls
        ranked = [history.incumbent, *(one for one in history.best(_BEAM) if one is not history.incumbent)]
        each = max(calls_a_row(one, history.train) for one in ranked[:_BEAM])
        beam = ranked[: min(_BEAM, max(1, calls // (_CALLS_A_PARENT * each)))]
        rows = min(_ROWS, max(1, calls // (3 * each * len(beam))))
        room = calls // (4 * FEWEST_ROWS * each * len(beam))
        gradients = min(_MOST_GRADIENTS, max(_FEWEST_GRADIENTS, room))
        spent = len(beam) * (rows * each + _CALLS_A_GRADIENT * gradients)
        return cls(beam, rows, gradients, max(0, calls - spent))


def _acted(name: str, traces: Sequence[Trace]) -> bool:
    return any(steps_of(trace.steps, name) for trace in traces)


def _successors(
    history: History, parent: Candidate, name: str, wrong: Sequence[Trace], gradients: int, rng: Generator
) -> Flow[list[Proposal]]:
    """Edits of one parent along its gradients, each followed by its variation."""
    text = texts_of(parent.program)[name].value
    groups = -(-gradients // _GRADIENTS_A_GROUP)
    drawn = [[wrong[int(index)] for index in rng.permutation(len(wrong))[:_GROUP]] for _ in range(groups)]
    answer = parent.program.output_field
    shown = [[line for trace in group if (line := _mistake(trace, name, answer))] for group in drawn]
    briefs = [_reasons(text, lines) for lines in shown if lines]
    told = yield from together(
        [
            written(history, brief, _GRADIENTS_A_GROUP + _SPARE, generator)
            for brief, generator in zip(briefs, rng.spawn(len(briefs)), strict=True)
        ]
    )
    used = [reason for texts in told for reason in texts[:_GRADIENTS_A_GROUP]]
    reasons = list(dict.fromkeys(used))[:gradients]
    edited = yield from together(
        [
            _edited(history, text, reason, generator)
            for reason, generator in zip(reasons, rng.spawn(len(reasons)), strict=True)
        ]
    )
    return _proposals(history, parent, name, list(zip(reasons, edited, strict=True)))


def _edited(history: History, text: str, reason: str, rng: Generator) -> Flow[list[str]]:
    """A text edited along a gradient, and that edit in other words."""
    edits = (yield from written(history, _edit(text, reason), 1 + _SPARE, rng))[:1]
    return edits + ((yield from reworded(history, edits[0], 1, rng)) if edits else [])


def _proposals(
    history: History, parent: Candidate, name: str, edited: Sequence[tuple[str, Sequence[str]]]
) -> list[Proposal]:
    """What the parent has not been tried with, each text once."""
    tried = alike_but_for(history, parent.program, name)
    parameter = texts_of(parent.program)[name]
    found: dict[str, Proposal] = {}
    for reason, texts in edited:
        for text in texts:
            if fits(parameter, text) and text not in tried:
                note = f"{name} edited, because {reason[0].lower()}{reason[1:]} {text}"
                found.setdefault(text, Proposal({name: text}, note, parent))
    return list(found.values())


def _mistake(trace: Trace, name: str, answer: str) -> str:
    """A failure as the text's place has seen it, with the right answer; empty where it had no part in it."""
    steps = steps_of(trace.steps, name)
    if not steps:
        return ""
    step, right = steps[-1], one_line(trace.example.target or "another answer", 160)
    said = on_a_line(step.inputs, step.outputs or {"answer": f"none ({step.error})"})
    if step.error or step.outputs.get(answer) == trace.prediction.text:
        return f"{said} (right: {right})"
    return f"{said}. In the end: {one_line(trace.prediction.text, 160) or 'no answer'} (right: {right})"


def _reasons(text: str, mistakes: Sequence[str]) -> Brief:
    lines = [Part(line, 1 / (place + 1)) for place, line in enumerate(mistakes)]
    shown = tuple((f"Instruction: {task.instruction}\n{task.mistakes}\nReason:", task.reason) for task in MENDED)
    return Brief(
        "Each instruction led to wrong answers, and there is a reason.",
        (Part(f"Instruction: {one_line(text, _MOST_CHARS)}"), *lines, Part("Reason:")),
        most_chars=200,
        most_tokens=48,
        shown=shown,
        openings=("The instruction",),
        plain=True,
    )


def _edit(text: str, reason: str) -> Brief:
    def asked(instruction: str, problem: str) -> str:
        return f"Instruction: {instruction}\nProblem: {problem}\nBetter instruction:"

    return Brief(
        "Each instruction is made better, so that its problem goes away.",
        (Part(asked(one_line(text, _MOST_CHARS), reason)),),
        _MOST_CHARS,
        _MOST_TOKENS,
        shown=tuple((asked(task.instruction, task.reason), task.better) for task in MENDED),
        openings=openings_like(text),
        plain=True,
    )
