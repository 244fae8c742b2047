"""optoprime: one answer that edits all parameters at once, to a problem made of executions (Cheng 2024, section 3).

The problem is what `feedback.propagation` makes of this round's minibatch; in it stand the latest edits of this
proposer with their values on dev, as OptoPrime keeps them in its memory. Deviations: answers are decoded under a
grammar, so that they always parse; several are sampled and raced instead of trusting one; what is invalid, changes
nothing or recites a train example is dropped; and edits that never raced are not remembered, since too little is known
of them.
"""

from collections.abc import Mapping
from typing import Any

from numpy.random import Generator

from engine.feedback.propagation.answers import answer_grammar, answer_tokens, read_answer
from engine.feedback.propagation.edits import editable
from engine.feedback.propagation.problem import Problem, propagated
from engine.feedback.propagation.variables import Variables
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.optim.minibatch import minibatch
from engine.optim.words.writing import recites
from engine.program.graph import Program
from engine.program.typed.json_values import compact
from engine.records import Completion, Generate

_SAMPLES = 4
_TEMPERATURE = 0.8
_REMEMBERED = 6


class OptoPrimeProposer:
    """Proposes up to four edits of whatever lies before the failures: texts, code, choices and numbers together."""

    name = "optoprime"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether there is a parameter that an answer can edit."""
        return bool(editable(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The answers to one problem that are of use and differ, in the order they were drawn."""
        base = int(rng.integers(0, 2**31))  # before anything is asked
        program = history.program
        traces = yield from minibatch(history, program)
        problem = yield from propagated(program, traces, history.room_tokens, attempts=_attempts(history))
        if problem is None:
            return []
        # A room is at most three quarters of the context, so that a third of it is left for the answer.
        completions = yield from _answers(problem, history.room_tokens // 3, base)
        proposals: dict[str, Proposal] = {}
        for completion in completions:
            read = read_answer(completion.text or "", program)
            edits = {name: value for name, value in read.items() if not recites(str(value), history.train)}
            if edits:
                note = _assignments(edits)
                proposals.setdefault(note, Proposal(edits, note))
        return list(proposals.values())


def _answers(problem: Problem, most_tokens: int, base: int) -> Flow[list[Completion]]:
    tokens = min(most_tokens, answer_tokens(problem.parameters))
    grammar = answer_grammar(problem.parameters)
    requests = [
        Generate(
            problem.prompt, tokens, temperature=_TEMPERATURE, sample=base + number, grammar=grammar, role="optimizer"
        )
        for number in range(_SAMPLES)
    ]
    return (yield from together([ask(request) for request in requests]))


def _attempts(history: History) -> list[str]:
    """The latest edits of this proposer that raced, with their values on dev, the last one first."""
    named = Variables.of(history.program).parameters
    raced = [one for one in history.by(OptoPrimeProposer.name) if one.traces]
    return [
        f"{_assignments({named[name]: value for name, value in one.edits.items()})} scored {history.value(one):.2f}"
        for one in reversed(raced[-_REMEMBERED:])
    ]


def _assignments(edits: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {compact(value)}" for name, value in edits.items())
