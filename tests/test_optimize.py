"""The loop on the scripted backend: it improves what can be improved, decides by tests, and keeps to its budget."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from engine.errors import BudgetSpent, ContentError
from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, Script, ScriptedBackend
from engine.inference.usage import Usage
from engine.optim.acceptance import ALPHA, judge, levels_of
from engine.optim.budgeting import Meter, RoundPlan
from engine.optim.calibration import calibrated, fit_bias
from engine.optim.history import Proposer
from engine.optim.loop import Outcome, Setting, optimize
from engine.optim.proposers import PROPOSERS, make_proposers
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Vote
from engine.records import Example, Generate, Request, Score
from engine.store.keys import seed_of
from engine.store.rows import CandidateRow
from engine.store.store import Store
from engine.tasks.budget import Budget
from engine.tasks.metrics import METRICS

COLOURS = ("blue", "green", "red")
EXACT = Objective(METRICS["exact_match"])


def program() -> Program:
    return Program(Predict("Name the colour.", output="colour", choices=COLOURS)(Input("text")))


def examples(count: int, name: str) -> list[Example]:
    return [
        Example(f"{name}-{n}", {"text": f"{name} thing {n} is {COLOURS[n % 3]}"}, (COLOURS[n % 3],))
        for n in range(count)
    ]


def biased_script(request: Request, prompt: str) -> Answer:
    """Sees the colour in the last line, but likes red far too much."""
    if isinstance(request, Generate):
        return f"Look at the last word, number {seed_of(prompt, request.sample) % 1000}."
    assert isinstance(request, Score)
    last = prompt.rstrip().split("\n")[-2]
    return [
        (2.0 if word.strip() in last else 0.0) + (5.0 if word.strip() == "red" else 0.0)
        for word in request.continuations
    ]


def useless_script(request: Request, prompt: str) -> Answer:
    """Answers by a hash of the prompt: nothing can make it better."""
    if isinstance(request, Generate):
        return f"Nothing helps, number {seed_of(prompt, request.sample) % 1000}."
    assert isinstance(request, Score)
    return [seed_of(prompt, word) / 2**64 for word in request.continuations]


class Silent:
    """Watches nothing."""

    def phase(self, round: int, name: str, dev_score: float) -> None: ...

    def progress(self, usage: Usage, open_requests: int, meter: Meter) -> None: ...

    def candidate(self, row: CandidateRow) -> None: ...


def optimized(
    script: Script, budget: str, names: Sequence[str] = tuple(PROPOSERS), seed: int = 0, start: Program | None = None
) -> tuple[Outcome, Runtime]:
    runtime = Runtime({"task": ScriptedBackend(script)}, Store(":memory:"))
    proposers: list[Proposer] = make_proposers(tuple(names))
    setting = Setting("run", start or program(), examples(60, "train"), examples(48, "dev"), EXACT, proposers, seed)
    return optimize(setting, runtime, Meter(Budget.parse(budget), runtime.usage), Silent()), runtime


def test_a_biased_model_is_put_right_by_a_bias_alone() -> None:
    outcome, _ = optimized(biased_script, "2000calls", ["bias"])
    accepted = [row for row in outcome.candidates if row.accepted]
    assert [row.proposer for row in accepted] == ["bias"]
    assert [trace.score for trace in outcome.best_dev] == [1.0] * 48
    assert outcome.best.parameters["colour.bias"].value[2] < outcome.best.parameters["colour.bias"].value[0]


def test_nothing_is_accepted_where_nothing_helps() -> None:
    for seed in range(3):
        outcome, _ = optimized(useless_script, "4000calls", seed=seed)
        assert outcome.best.fingerprint == program().fingerprint
        assert not any(row.accepted for row in outcome.candidates)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, _ = optimized(useless_script, "3000calls", seed=1)
    again, _ = optimized(useless_script, "3000calls", seed=1)
    other, _ = optimized(useless_script, "3000calls", seed=2)
    assert first.candidates == again.candidates
    assert [row.program for row in first.candidates] != [row.program for row in other.candidates]


@pytest.mark.parametrize("budget", ["60calls", "500calls", "1700calls"])
def test_a_budget_in_calls_is_never_exceeded(budget: str) -> None:
    outcome, runtime = optimized(biased_script, budget)
    assert runtime.usage.calls <= Budget.parse(budget).amount
    assert "spent" in outcome.ended or "solved" in outcome.ended


def test_a_budget_in_tokens_ends_the_run_at_the_same_place_from_the_store() -> None:
    store = Store(":memory:")
    endings = []
    for _ in range(2):
        runtime = Runtime({"task": ScriptedBackend(useless_script)}, store)
        setting = Setting(
            "run",
            program(),
            examples(60, "train"),
            examples(48, "dev"),
            EXACT,
            make_proposers(("bias", "settings")),
            0,
        )
        meter = Meter(Budget.parse("30ktok"), runtime.usage)
        endings.append(optimize(setting, runtime, meter, Silent()))
    assert endings[0].candidates == endings[1].candidates
    assert runtime.usage.calls == runtime.usage.cached_calls


def test_the_baseline_is_scored_whatever_the_budget() -> None:
    outcome, runtime = optimized(biased_script, "10calls")
    assert len(outcome.baseline_dev) == runtime.usage.calls == 48
    assert (outcome.candidates, outcome.best.fingerprint) == ((), program().fingerprint)
    assert "is spent" in outcome.ended


def test_a_run_where_no_row_fits_is_an_error() -> None:
    backend = ScriptedBackend(biased_script, context=3)
    with Runtime({"task": backend}, Store(":memory:")) as runtime:
        setting = Setting("run", program(), examples(9, "train"), examples(9, "dev"), EXACT, [], 0)
        with pytest.raises(ContentError, match="not one dev example"):
            optimize(setting, runtime, Meter(Budget.parse("1m"), runtime.usage), Silent())


def test_levels_of_acceptance_never_add_up_to_more_than_alpha() -> None:
    for raced in (1, 2, 3, 4, 9):
        levels = [levels_of(round, raced) for round in range(1, 500)]
        assert {len(shares) for shares in levels} == {raced}
        assert all(list(shares) == sorted(shares, reverse=True) for shares in levels)
        assert sum(map(sum, levels)) <= ALPHA
    assert sum(levels_of(1, 4)) == ALPHA / 2


def test_false_acceptance_stays_below_alpha_when_candidates_are_no_better() -> None:
    rng = np.random.default_rng(5)
    accepted = 0
    for _ in range(300):
        incumbent = rng.integers(0, 2, 100).astype(float)
        rounds = []
        for round in range(1, 6):
            field = [np.where(rng.random(100) < 0.3, rng.integers(0, 2, 100), incumbent) for _ in range(4)]
            best = max(range(4), key=lambda place: field[place].mean())
            level = levels_of(round, 4)[best]
            rounds.append(judge(field[best].tolist(), incumbent.tolist(), incumbent.tolist(), level, rng).accepted)
        accepted += any(rounds)
    assert accepted / 300 <= ALPHA


def test_the_fitted_bias_agrees_with_a_planted_one() -> None:
    rng = np.random.default_rng(0)
    planted = np.array([1.5, -0.5, -1.0])
    answers = rng.integers(0, 3, 600)
    evidence = rng.normal(0, 1, (600, 3)) + 2.5 * np.eye(3)[answers]
    bias, slope = fit_bias(evidence - planted, answers)
    assert np.allclose(bias, planted - planted.mean(), atol=0.25)
    assert slope > 1.0


def pooled() -> Program:
    """Two choosers, told differently, that vote."""
    branches = {name: Predict(f"Name the {name}.", output="colour", choices=COLOURS) for name in ("colour", "hue")}
    return Program(Vote(branches=branches, weights="likelihood")(Input("text"), name="answer"))


def test_parts_that_give_the_answer_have_biases_fitted_too() -> None:
    with Runtime({"task": ScriptedBackend(biased_script)}, Store(":memory:")) as runtime:
        train = examples(30, "train")
        before = runtime.run(EXACT.run(pooled(), train))
        found = runtime.run(calibrated(pooled(), train, EXACT))
        after = runtime.run(EXACT.run(found.program, train))
    assert EXACT.mean(before) < 0.5
    assert EXACT.mean(after) == 1.0
    assert found.loss == mean_loss(after) < mean_loss(before)
    for name in ("answer.branches.colour.bias", "answer.branches.hue.bias"):
        values = found.program.parameters[name].value
        assert isinstance(values, tuple)
        assert values[2] < values[0]


def test_a_run_of_a_vote_is_put_right_by_the_biases_of_its_branches() -> None:
    outcome, _ = optimized(biased_script, "3000calls", ["bias"], start=pooled())
    assert [trace.score for trace in outcome.best_dev] == [1.0] * 48


def test_a_proposer_plays_where_the_incumbent_suits_it() -> None:
    def script(request: Request, prompt: str) -> Answer:
        """Mostly right where demonstrations are shown."""
        assert isinstance(request, Score)
        seen = re.findall(r"Text: (.* is (\w+))", prompt)
        text, colour = seen[-1]
        known = len(seen) > 1 and seed_of(text) % 5
        return [1.0 if known and word.strip() == colour else 0.0 for word in request.continuations]

    outcome, _ = optimized(script, "1500calls", ["labelled_demos", "order_demos"])
    first = min(play.round for play in outcome.plays if play.proposer == "order_demos")
    accepted = [row.round for row in outcome.candidates if row.accepted]
    assert first > accepted[0], "there is nothing to put in order before demonstrations are accepted"


def test_a_bias_for_a_label_never_seen_stays_finite() -> None:
    bias, _ = fit_bias(np.zeros((10, 3)), np.zeros(10, dtype=np.int64))
    assert np.isfinite(bias).all()
    assert bias[0] == bias.max()


def test_a_meter_counts_no_time_before_the_first_paid_call_of_a_resumed_session() -> None:
    usage = Usage()
    meter = Meter(Budget.parse("10s"), usage, seconds_before=9.9)
    usage.calls = usage.cached_calls = 50
    meter.allow(usage)
    assert meter.seconds == 9.9
    usage.calls += 1
    meter.allow(usage)


def test_a_run_whose_time_is_up_replays_from_the_store_and_ends_at_its_first_new_call() -> None:
    usage = Usage()
    meter = Meter(Budget.parse("10s"), usage, seconds_before=10.5)
    usage.calls = usage.cached_calls = 50
    meter.allow(usage)
    usage.calls += 1
    with pytest.raises(BudgetSpent):
        meter.allow(usage)


def test_a_baseline_from_the_store_counts_with_the_time_that_it_took_then() -> None:
    usage = Usage()
    meter = Meter(Budget.parse("100s"), usage)
    usage.calls = usage.cached_calls = 100
    assert 1000 < meter.calls_left(2.0) <= 100 * 100 / 2
    assert Meter(Budget.parse("300calls"), usage).calls_left(2.0) == 300


def test_a_round_plan_spends_a_part_of_what_is_left() -> None:
    for calls in (100, 700, 3000, 50_000):
        plan = RoundPlan.of(calls, proposers=4, dev=100)
        assert plan.players * plan.allowance <= calls // 2
        assert 24 <= plan.screening <= 120
        assert plan.racers == 4
        assert plan.players == 1 or plan.allowance >= 300
    assert RoundPlan.of(3000, proposers=4, dev=20).racers == 1, "few rows prove little of many"


def test_proposers_drop_what_is_cut_off_empty_or_unchanged() -> None:
    def script(request: Request, prompt: str) -> Answer:
        return "" if isinstance(request, Generate) else biased_script(request, prompt)

    outcome, _ = optimized(script, "2000calls", ["textual_gradient"])
    assert outcome.candidates == ()
    assert "nothing new was proposed" in outcome.ended


def test_open_text_programs_are_optimized_with_bootstrapped_demonstrations() -> None:
    def script(request: Request, prompt: str) -> Answer:
        seen = re.findall(r"Text: .* is (\w+)", prompt)
        shown = len(seen) > 1
        if isinstance(request, Score):
            return [(-1.0 if shown and word.strip() == seen[-1] else -9.0) for word in request.continuations]
        return seen[-1] if shown or seed_of(prompt) % 3 == 0 else "I do not know."

    text = Input("text")
    hint = Predict("Give a hint.", output="hint")(text)
    start = Program(Predict("Name the colour.", output="colour")(text, hint))
    outcome, _ = optimized(script, "5000calls", ["demos"], start=start)
    assert any(row.accepted for row in outcome.candidates)
    for name in ("hint", "colour"):
        demos = outcome.best.parameters[f"{name}.demos"].value
        assert demos, "every node gets demonstrations of its own"
        assert all(demo.outputs[name] for demo in demos)
