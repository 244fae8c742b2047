"""Joint search, settings and caps: what they combine, and what they learn from the run."""

from typing import Any

import pytest
from numpy.random import default_rng
from support_nearest import Ends
from support_optim import COLOURS, closed_program, guessing, history_of, open_program, proposed, rows, runtime_of

import engine
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend
from engine.optim.history import Candidate
from engine.optim.proposers.joint import JointProposer
from engine.optim.proposers.settings import SettingsProposer
from engine.optim.proposers.token_caps import TokenCapsProposer
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Vote
from engine.program.parameters import Demo
from engine.records import Example, Generate, Request, Score
from engine.store.store import Store

TRAIN = rows(60)
GOOD = "Look at the last word."


def likes(request: Request, prompt: str) -> Answer:
    """Is right in plain style under the good instruction, the more so the more demos there are."""
    if isinstance(request, Generate):
        return ""
    assert isinstance(request, Score)
    sure = (GOOD in prompt) * 2.0 + ("<system>" not in prompt) * 2.0 + min(prompt.count("Colour:"), 20) / 10
    asked = prompt.split("Text: ")[-1]
    return [sure if f"is {word.strip()}" in asked else 0.0 for word in request.continuations]


def candidates(*instructions: str, loss: float | None = 1.0) -> list[Candidate]:
    return [
        Candidate(n, closed_program().replace({"colour.instruction": text}), (), 1, "opro", "", train_loss=loss)
        for n, text in enumerate(instructions, 1)
    ]


def test_instructions_sets_and_settings_are_found_together() -> None:
    others = candidates("Say something.", GOOD, "What is it?")
    run = history_of(closed_program(), TRAIN, others=others, allowance_calls=500, calibrates=False)
    proposals = proposed(JointProposer(), run, likes)
    assert 0 < len(proposals) <= 4
    best = closed_program().replace(proposals[0].edits).parameters
    assert best["colour.instruction"].value == GOOD
    assert best["colour.style"].value == "plain"
    assert len(best["colour.demos"].value) >= 8  # type: ignore[arg-type]
    for proposal in proposals:
        known = closed_program().parameters
        assert all(known[name].value != value for name, value in proposal.edits.items()), "only what changes"


def test_an_instruction_is_written_for_what_the_program_is_and_tried_with_the_rest() -> None:
    asked: list[str] = []

    def script(request: Request, prompt: str) -> Answer:
        if isinstance(request, Generate):
            asked.append(prompt)
            return GOOD
        return likes(request, prompt)

    run = history_of(closed_program(), TRAIN, allowance_calls=500, calibrates=False)
    best = closed_program().replace(proposed(JointProposer(), run, script)[0].edits).parameters
    assert best["colour.instruction"].value == GOOD
    assert "Example: text = train thing 2 is red => red" in asked[0]
    assert asked[0].endswith("Best instruction for colour:")


def test_it_never_proposes_the_incumbent_and_asks_nothing_twice() -> None:
    asked: list[tuple[str, Request]] = []

    def script(request: Request, prompt: str) -> Answer:
        asked.append((prompt, request))
        return likes(request, prompt)

    run = history_of(closed_program(), TRAIN, allowance_calls=240)
    assert all(proposal.edits for proposal in proposed(JointProposer(), run, script))
    with runtime_of(likes) as runtime:
        runtime.run(JointProposer().propose(run, default_rng(0)))
        assert runtime.usage.calls == len(asked) == len(set(asked)), "a trial that came before costs nothing"


def test_what_the_run_knows_is_told_to_the_estimator() -> None:
    """Losses of earlier candidates steer the trials: of two runs the one that knows better tries the good one more."""
    tried = {}
    for name, losses in (("warm", (9.0, 0.1)), ("cold", (None, None))):
        asked: list[str] = []

        def script(request: Request, prompt: str, into: list[str] = asked) -> Answer:
            if isinstance(request, Generate):
                return ""
            into.append(prompt)
            return [0.0] * len(request.continuations)  # type: ignore[union-attr]

        others = [
            one
            for n, loss in enumerate(losses)
            for one in candidates(
                *(f"{text} {n}" for text in ("Bad", "Worse", "Worst")) if not n else (GOOD,), loss=loss
            )
        ]
        proposed(JointProposer(), history_of(closed_program(), TRAIN, others=others, allowance_calls=400), script)
        tried[name] = sum(GOOD in prompt for prompt in asked) / len(asked)
    assert tried["warm"] > tried["cold"]


def test_pools_of_earlier_candidates_can_be_taken_up_again() -> None:
    pool = {"colour.demos": [Demo({"text": "a"}, {"colour": "red"})] * 3, "colour.nearest": 2}
    start = closed_program().replace({**pool, "colour.order": "hubs_first"})
    other = Candidate(1, closed_program(), (), train_loss=0.5)
    run = history_of(start, TRAIN, others=[other], allowance_calls=200, calibrates=False)
    with Runtime({"task": ScriptedBackend(likes)}, Store(":memory:"), {"retrieval": Ends()}) as runtime:
        proposals = runtime.run(JointProposer().propose(run, default_rng(0)))
    assert proposals
    for proposal in proposals:
        layer = start.replace(proposal.edits).node("colour").layer
        assert isinstance(layer, Predict)
        assert (layer.nearest, len(layer.demos)) == (2, 3) or layer.nearest == 0


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


def changes(program: Program, others: list[Candidate] | None = None) -> list[dict[str, Any]]:
    run = history_of(program, TRAIN, others=others or ())
    return [dict(proposal.edits) for proposal in proposed(SettingsProposer(), run, guessing(""))]


def test_settings_are_changed_one_at_a_time_choices_first_then_two_together() -> None:
    found = changes(closed_program())
    single = [{"colour.style": "plain"}, {"colour.list_choices": "no"}]
    assert sorted(map(str, found[:2])) == sorted(map(str, single))
    assert found[2:] == [{"colour.style": "plain", "colour.list_choices": "no"}]


def test_numbers_are_halved_and_doubled_within_their_limits() -> None:
    layer = Vote(of=Predict("Name it.", output="colour", temperature=1.5, max_tokens=1), n=5)
    found = changes(Program(layer(Input("text"))))
    by_name: dict[str, set[float]] = {}
    for edits in found:
        for name, value in edits.items():
            by_name.setdefault(name, set()).add(value)
    assert by_name["colour.n"] == {2, 10}
    assert by_name["colour.of.temperature"] == {0.75, 2}
    assert by_name["colour.of.max_tokens"] == {2}
    assert "colour.of.nearest" not in by_name, "whether there is a pool is no matter of number"


def test_a_pool_may_show_more_or_fewer_but_stays_a_pool() -> None:
    demos = [Demo({"text": "a"}, {"colour": "red"})]
    found = changes(closed_program().replace({"colour.demos": demos, "colour.nearest": 1}))
    assert {"colour.nearest": 2} in found
    assert {"colour.order": "hubs_first"} in found
    assert all(edits.get("colour.nearest") != 0 for edits in found)


def test_what_was_tried_is_not_proposed_again() -> None:
    tried = Candidate(1, closed_program().replace({"colour.style": "plain"}), ())
    assert {"colour.style": "plain"} not in changes(closed_program(), [tried])


# ── caps ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_cap_of_an_answer_is_that_of_the_longest_target() -> None:
    run = history_of(open_program(), [*TRAIN, Example("long", {"text": "x"}, ("dark blue green",))])
    (proposal,) = proposed(TokenCapsProposer(), run, guessing(""))
    (count,) = proposal.edits.values()
    assert list(proposal.edits) == ["colour.max_tokens"], "the hint is no answer"
    assert 3 <= count <= 8
    fitted = history_of(open_program().replace(proposal.edits), run.train)
    assert proposed(TokenCapsProposer(), fitted, guessing("")) == []
    assert not TokenCapsProposer().suits(closed_program())


# ── a real model ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_joint_proposals_for_the_embedded_model_are_valid() -> None:
    run = history_of(closed_program(), rows(24), others=candidates(GOOD), allowance_calls=150)
    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        proposals = runtime.run(JointProposer().propose(run, default_rng(0)))
        assert runtime.usage.calls <= 150
    assert proposals
    for proposal in proposals:
        program = closed_program().replace(proposal.edits)
        assert program.fingerprint != closed_program().fingerprint
        assert set(program.parameters["colour.bias"].choices) == set(COLOURS)  # type: ignore[union-attr]
