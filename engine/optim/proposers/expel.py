"""expel: insights from comparing executions, kept as a list with the instruction (ExpeL; Zhao 2024).

What failed is set beside a right execution, one with the same right answer where there is one, and right executions are
looked at several at a time. For each comparison the model chooses what to do with the list: ADD a rule, EDIT, UPVOTE or
DOWNVOTE one of those there are. That choice is closed, and drawn by likelihood; the words are then written.

Deviations: comparisons are made side by side, all on the list as it stands, instead of one after another; the list is
part of the text it belongs to (`insights`), so that a rule lives only where the program with it is accepted.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.optim.minibatch import failures, minibatch
from engine.optim.words.insights import MOST, Insight, Kind, Operation, edited, read, told
from engine.optim.words.telling import execution
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.graph import Program
from engine.program.layers.predict import softmax
from engine.records import Chat, Message, Score, Trace

_PAIRS = 4
_LISTS = 2
_LIST_LENGTH = 4
_SAMPLES = 2
_MOST_CHARS = 160
_MOST_TOKENS = 48
_SYSTEM = "You find rules in examples. You answer with one rule only."


class ExpeLProposer:
    """Proposes the list of insights of one text after operations from failures, from successes, and from both."""

    name = "expel"
    prior = 0.02

    def suits(self, program: Program) -> bool:
        """Whether there is a text."""
        return bool(texts_of(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Up to three lists, the one with all operations first."""
        name = next_text(history, self.name, list(texts_of(history.program)), rng)
        traces = yield from minibatch(history, history.program)
        pairs, lists = _pairs(traces, name), _lists(traces, name)
        parameter = texts_of(history.program)[name]
        instruction, insights = read(parameter.value)
        cases = [*pairs, *lists]
        generators = rng.spawn(len(cases))
        chosen = yield from together(
            [_operation(history, instruction, insights, case, own) for case, own in zip(cases, generators, strict=True)]
        )
        proposals: dict[str, Proposal] = {}
        for group in (chosen, chosen[: len(pairs)], chosen[len(pairs) :]):
            operations = [operation for operation in group if operation]
            text = told(instruction, edited(insights, operations))
            if operations and fits(parameter, text):
                note = f"{name}: {'; '.join(map(_in_words, operations))}"
                proposals.setdefault(text, Proposal({name: text}, note))
        return list(proposals.values())


def _pairs(traces: list[Trace], name: str) -> list[str]:
    """Failed executions, each beside a right one where any is right."""
    right = [trace for trace in traces if trace.score >= 1.0]
    cases = []
    for number, failed in enumerate(failures(traces)[:_PAIRS]):
        alike = [trace for trace in right if trace.example.target == failed.example.target] or right
        case = f"Wrong:\n{execution(failed, name)}\n"
        if alike:
            case += f"\nRight:\n{execution(alike[number % len(alike)], name, judged=False)}\n"
        cases.append(case)
    return cases


def _lists(traces: list[Trace], name: str) -> list[str]:
    """Right executions, several at a time."""
    right = [execution(trace, name, judged=False) for trace in traces if trace.score >= 1.0]
    chunks = [right[start : start + _LIST_LENGTH] for start in range(0, len(right), _LIST_LENGTH)]
    return ["\n\n".join(["Right:", *chunk]) + "\n" for chunk in chunks[:_LISTS]]


def _operation(
    history: History, instruction: str, insights: Sequence[Insight], case: str, rng: Generator
) -> Flow[Operation | None]:
    """What to do with the list after one comparison; None where the model wrote nothing of use."""
    kind, place = yield from _choice(insights, case, rng)
    if kind in ("UPVOTE", "DOWNVOTE"):
        return Operation(kind, place)
    old = f"The rule was: {insights[place].text}\n" if kind == "EDIT" else ""
    rules = Part(f"Rules so far:\n{_numbered(insights)}\n", 0.5) if insights else Part("")
    request = (Part(f"Instruction: {instruction}\n"), rules, Part(case, 1.0), Part(f"{old}{_WANTED[kind]}"))
    brief = Brief(_SYSTEM, request, _MOST_CHARS, _MOST_TOKENS, shown=_SHOWN, openings=_openings(instruction))
    texts = yield from written(history, brief, _SAMPLES, rng)
    return Operation(kind, place, texts[0]) if texts else None


def _choice(insights: Sequence[Insight], case: str, rng: Generator) -> Flow[tuple[Kind, int]]:
    """The operation, and the place of the insight it is about; adding is all there is to do with an empty list."""
    draws = rng.random(2)
    if not insights:
        return "ADD", -1
    kinds = tuple(kind for kind in _CHANCES if kind != "ADD" or len(insights) < MOST)
    chances = [_CHANCES[kind] for kind in kinds]
    kind = kinds[(yield from _drawn(case, insights, kinds, "", chances, float(draws[0])))]
    if kind == "ADD":
        return kind, -1
    numbers = tuple(f" {number}" for number in range(1, len(insights) + 1))
    return kind, (yield from _drawn(case, insights, numbers, kind, [1] * len(numbers), float(draws[1])))


def _drawn(
    case: str, insights: Sequence[Insight], options: Sequence[str], lead: str, chances: Sequence[int], draw: float
) -> Flow[int]:
    """Which option: its chance beforehand, times by how much the case makes the model find it likelier.

    What a small model prefers whatever the case is taken off so (contextual calibration; Zhao 2021).
    """
    system, end = Message("system", "You keep a list of rules."), f"Rules:\n{_numbered(insights)}\n\n{_OPERATIONS}"
    chats = [Chat((system, Message("user", f"{seen}{end}")), lead) for seen in (f"{case}\n", "")]
    asked = [ask(Score(chat, tuple(options), role="optimizer")) for chat in chats]
    with_case, without = yield from together(asked)
    if with_case.loglikelihoods is None or without.loglikelihoods is None:
        return 0
    worth = [
        math.log(chance) + one - other
        for chance, one, other in zip(chances, with_case.loglikelihoods, without.loglikelihoods, strict=True)
    ]
    return min(int(np.searchsorted(np.cumsum(softmax(worth)), draw)), len(options) - 1)


def _numbered(insights: Sequence[Insight]) -> str:
    return "\n".join(f"{number}. {one.text}" for number, one in enumerate(insights, 1))


def _openings(instruction: str) -> tuple[str, ...]:
    """A rule begins as an instruction does, or with its condition."""
    orders = openings_like(instruction)
    return ("When", "If", *orders) if orders else ()


def _in_words(operation: Operation) -> str:
    place = "" if operation.kind == "ADD" else f" {operation.place + 1}"
    return f"{operation.kind}{place} {operation.text}".strip()


_CHANCES: dict[Kind, int] = {"ADD": 4, "EDIT": 2, "UPVOTE": 3, "DOWNVOTE": 1}
_OPERATIONS = """What should be done with the rules after this?
ADD: a new rule is needed
EDIT and a number: that rule is not clear
UPVOTE and a number: that rule is right
DOWNVOTE and a number: that rule is wrong"""
_WANTED = {
    "ADD": "Write one rule that helps to answer rightly.",
    "EDIT": "Write this rule better, so that it helps to answer rightly.",
}
_SHOWN = (
    (
        "Instruction: Say the number.\n\n"
        'Wrong:\nNumber: seven\nAnswer: seven\nFeedback: The answer was "seven", but "7" is right.\n\n'
        f"Right:\nNumber: forty\nAnswer: 40\n\n{_WANTED['ADD']}",
        "Write the number in digits, not in words.",
    ),
    (
        "Instruction: What is the review like?\n\n"
        f"Right:\nReview: It broke after a day.\nAnswer: negative\n\n{_WANTED['ADD']}",
        "When the review tells of something broken, the answer is negative.",
    ),
)
