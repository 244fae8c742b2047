"""optoprime: one answer that edits all parameters at once, to a problem made of whole executions (Cheng 2024, section 3).

The problem is what `feedback.propagation` makes of this round's executions; in it stand the latest attempts of this
proposer with their scores, as OptoPrime keeps them in its memory. Deviations: answers are decoded under a grammar, so
that they always parse; several are sampled and raced instead of trusting one; what is invalid or changes nothing is
dropped; and attempts that were never raced are not remembered, since nothing is known of them.
"""

from numpy.random import Generator

from engine.feedback.answers import answer_grammar, answer_tokens, read_answer
from engine.feedback.propagation import Problem, propagated
from engine.feedback.variables import Variables
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.program.graph import Program
from engine.program.typed.json_values import compact
from engine.records import Completion, Generate

_ROOM_TOKENS = 1200
_SAMPLES = 4
_TEMPERATURE = 0.8
_REMEMBERED = 6


class OptoPrimeProposer:
    """Proposes up to four edits of whatever lies before the failures: texts, code, choices and numbers together."""

    name = "optoprime"
    wants_feedback = True

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The answers to one problem that are valid and differ, in the order they were drawn."""
        base = int(rng.integers(0, 2**31))
        program = history.incumbent
        problem = yield from propagated(program, history.failures, _ROOM_TOKENS, attempts=_attempts(history))
        if problem is None:
            return []
        completions = yield from _answers(problem, base)
        proposals: dict[str, Proposal] = {}
        for completion in completions:
            edits = read_answer(completion.text or "", program)
            if edits:
                proposal = Proposal(edits, _note(program, edits))
                proposals.setdefault(proposal.note, proposal)
        return list(proposals.values())


def _answers(problem: Problem, base: int) -> Flow[list[Completion]]:
    grammar, tokens = answer_grammar(problem.parameters), answer_tokens(problem.parameters)
    requests = [
        Generate(
            problem.prompt, tokens, temperature=_TEMPERATURE, sample=base + number, grammar=grammar, role="optimizer"
        )
        for number in range(_SAMPLES)
    ]
    return (yield from together([ask(request) for request in requests]))


def _attempts(history: History) -> list[str]:
    """The latest edits of this proposer that were raced, the last one first."""
    raced = [row for row in history.candidates if row.proposer == OptoPrimeProposer.name and row.examples > 0]
    return [f"{row.note} scored {row.score:.2f}" for row in raced[: -_REMEMBERED - 1 : -1]]


def _note(program: Program, edits: dict[str, object]) -> str:
    """The edit as assignments to the variables that the problem shows."""
    named = Variables.of(program).parameters
    return ", ".join(f"{named[name]} = {compact(value)}" for name, value in edits.items())
