"""The contract of every proposer: valid edits only, its seed alone decides, its allowance holds, nothing breaks it."""

from collections.abc import Callable

import pytest
from numpy.random import default_rng
from support_optim import (
    EXACT,
    bad_completions,
    closed_program,
    guessing,
    history_of,
    open_program,
    proposed,
    rows,
    runtime_of,
)

from engine.inference.scripted import Answer, keyword_script
from engine.optim.history import Candidate, History, Proposal
from engine.optim.proposers import PROPOSERS, make_proposers
from engine.program.graph import Program
from engine.records import Generate, Request
from engine.store.keys import seed_of

PROGRAMS: dict[str, Callable[[], Program]] = {"closed": closed_program, "open": open_program}
ALL = [pytest.param(name, kind, id=f"{name}-{kind}") for name in PROPOSERS for kind in PROGRAMS]
TRAIN, DEV = rows(60), rows(24, "dev")


def history(kind: str, **settings: int) -> History:
    """A run that has seen a better and a worse program than the one it began with."""
    program = PROGRAMS[kind]()
    script = guessing("Red.")
    with runtime_of(script) as runtime:

        def ran(one: Program) -> tuple:  # type: ignore[type-arg]
            return tuple(runtime.run(EXACT.run(one, DEV)))

        edits = [{"colour.instruction": text} for text in ("Say which colour it is.", "Which colour is meant?")]
        programs = [program.replace(one) for one in edits]
        others = [
            Candidate(n, one, ran(one), 1, "opro", "rewritten", 0, edit, 1.0, accepted=n == 1, gain=0.1)
            for n, (one, edit) in enumerate(zip(programs, edits, strict=True), 1)
        ]
        return history_of(program, TRAIN, traces=ran(program), others=others, round=2, **settings)


def check(proposals: list[Proposal], run: History) -> None:
    """Every edit gives another program, and says what it is."""
    for proposal in proposals:
        parent = (proposal.parent or run.incumbent).program
        assert parent.replace(proposal.edits).fingerprint != parent.fingerprint
        assert proposal.note
        assert proposal.parent is None or proposal.parent in run.candidates


def talkative(request: Request, prompt: str) -> Answer:
    """Writes something else for every request."""
    if isinstance(request, Generate):
        return f"Look at the last word and say it, number {seed_of(prompt, request.sample) % 1000}."
    return keyword_script(request, prompt)


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_a_proposer_gives_valid_edits_and_the_same_for_the_same_seed(name: str, kind: str) -> None:
    (proposer,) = make_proposers((name,))
    run = history(kind)
    assert proposer.name == name
    assert 0 <= proposer.prior <= 1
    if not proposer.suits(run.program):
        return
    first = proposed(proposer, run, talkative, seed=3)
    (fresh,) = make_proposers((name,))
    assert proposed(fresh, run, talkative, seed=3) == first
    check(first, run)


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_a_proposer_keeps_to_its_allowance(name: str, kind: str) -> None:
    (proposer,) = make_proposers((name,))
    for allowance in (300, 1000):
        run = history(kind, allowance_calls=allowance)
        if not proposer.suits(run.program):
            return
        with runtime_of(talkative) as runtime:
            runtime.run(proposer.propose(run, default_rng(1)))
            assert runtime.usage.calls <= allowance


@pytest.mark.parametrize("name", PROPOSERS)
def test_two_hundred_bad_completions_break_nothing(name: str) -> None:
    (proposer,) = make_proposers((name,))
    waiting = bad_completions(200)

    def useless(request: Request, prompt: str) -> Answer:
        """The next bad completion for every text asked for."""
        if isinstance(request, Generate):
            return waiting.pop() if waiting else ""
        return keyword_script(request, prompt)

    for kind in PROGRAMS:
        run = history(kind, allowance_calls=80)
        for seed in range(_MOST_TURNS if proposer.suits(run.program) else 0):
            before = len(waiting)
            check(proposed(proposer, run, useless, seed), run)
            if not waiting or len(waiting) == before:
                break


_MOST_TURNS = 30
