"""Races: policies on their own, the bar, and whole races whose calls come back in any order."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import races_simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from support_shuffled import Shuffled

from engine.errors import ContentError
from engine.flows import Flow
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.optim.acceptance import ALPHA, levels_of
from engine.optim.racing import DEFAULT, POLICIES, Bar, Policy, Runner, best, best_finished, race
from engine.optim.racing.halving import Halving
from engine.optim.racing.paired import Paired
from engine.optim.racing.policy import Prospect, Standing, Values
from engine.optim.racing.ucb import Ucb
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Memory, Predict
from engine.records import Example, Request, Score, Trace
from engine.statistics import exact_permutation_p, paired_permutation_p
from engine.store.store import Store
from engine.tasks.metrics import METRICS

SMALL: Sequence[Policy] = (Ucb(block=3, doubt=0.6), Paired(block=4, level=0.9), Halving(first=4))


def program(number: int) -> Program:
    layer = Predict(f"Say what number {number} would.", output="answer", choices=("no", "yes"), style="plain")
    return Program(layer(Input("text")))


def rows(count: int) -> list[Example]:
    return [Example(f"row {row}", {"text": f"row {row}"}, ("yes",)) for row in range(count)]


class Table:
    """A script by which program n is right on a row with the probability that a table has for it."""

    def __init__(self, chances: Sequence[Sequence[float]]) -> None:
        self.chances = np.asarray(chances, dtype=np.float64)

    def __call__(self, request: Request, prompt: str) -> Sequence[float]:
        assert isinstance(request, Score)
        chance = self.chances[int(re.findall(r"number (\d+)", prompt)[0]), int(re.findall(r"row (\d+)", prompt)[-1])]
        return [math.log(1 - chance), math.log(chance)]

    @property
    def programs(self) -> list[Program]:
        return [program(number) for number in range(len(self.chances))]

    @property
    def dev(self) -> list[Example]:
        return rows(self.chances.shape[1])


def run(program: Program, examples: Sequence[Example]) -> Flow[list[Trace]]:
    return forward(program, examples, METRICS["exact_match"])


def score(trace: Trace) -> float:
    return trace.score


def probability(trace: Trace) -> float:
    assert trace.prediction.probabilities is not None
    return round(trace.prediction.probabilities["yes"], 3)


def racing(table: Table, policy: Policy, backend: ScriptedBackend | None = None, **settings: Any) -> list[Runner]:
    value = settings.pop("value", score)
    flow = race(table.programs, table.dev, run, value, policy, np.random.default_rng(0), **settings)
    backend = backend or ScriptedBackend(table)
    if isinstance(backend, Shuffled):
        found: list[Runner] = backend.run(flow)[0]
        return found
    with Runtime({"task": backend}, Store(":memory:")) as runtime:
        return runtime.run(flow)


def in_order_of_the_race(chances: Sequence[float]) -> list[float]:
    """Chances given in the order in which `racing` sees the rows, in that of dev."""
    order = np.random.default_rng(0).permutation(len(chances))
    return [chances[int(place)] for place in np.argsort(order)]


def skilled(rng: np.random.Generator, runners: int, count: int, spread: float = 0.5) -> Table:
    """Programs from bad to good, in no order, on rows from easy to hard."""
    skills = rng.permutation(np.linspace(0.5 - spread, 0.5 + spread, runners))[:, None]
    return Table(np.clip(skills + rng.normal(0, 0.35, (1, count)) + rng.normal(0, 0.2, (runners, count)), 0.02, 0.98))


tables = st.builds(
    lambda seed, runners, count, spread: skilled(np.random.default_rng(seed), runners, count, spread),
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.integers(9, 27),
    st.sampled_from([0.1, 0.5]),
)


# ── outcomes do not depend on order ──────────────────────────────────────────────────────────────


@settings(max_examples=45)
@given(tables, st.sampled_from(SMALL), st.integers(0, 1000), st.booleans(), st.booleans(), st.booleans())
def test_the_outcome_is_the_same_in_whatever_order_calls_come_back(
    table: Table, policy: Policy, seed: int, graded: bool, barred: bool, finish: bool
) -> None:
    rng, expected = np.random.default_rng(seed), []
    settings: dict[str, Any] = {"value": probability if graded else score, "finish": finish}
    if barred:
        before = rng.random(table.chances.shape[1])
        settings["bar"] = Bar(tuple(before if graded else before.round()), (0.2,) * len(table.programs))
    value = settings.pop("value")
    spent = set()
    for order in range(3):
        backend = Shuffled(table, (lambda line: 0) if order == 0 else seed, late=0.5 * (order == 2))
        flow = race(table.programs, table.dev, run, value, policy, np.random.default_rng(0), **settings)
        found, usage = backend.run(flow)
        expected = found if order == 0 else expected
        assert found == expected
        spent.add((usage.calls, usage.prompt_tokens))
    assert len(spent) == 1, "what it costs is the same, too"


@pytest.mark.parametrize("policy", [SMALL[1], SMALL[2]], ids=lambda policy: policy.name)
def test_a_runner_whose_fate_is_sealed_is_called_off(policy: Policy) -> None:
    table = Table([[0.9] * 32, in_order_of_the_race([0.9] * 4 + [0.1] * 28), [0.9] * 32])

    def leaders_first(line: Sequence[str]) -> int:
        return min(range(len(line)), key=lambda place: ("number 1" in line[place], place))

    backend = Shuffled(table, leaders_first)
    runners = racing(table, policy, backend)
    assert any("number 1" in prompt for prompt in backend.cancelled)
    assert not any("number 0" in prompt or "number 2" in prompt for prompt in backend.cancelled)
    assert runners[1].dropped
    assert best_finished(runners) == 0


def test_a_runner_that_cannot_pass_the_bar_any_more_is_called_off() -> None:
    table = Table([in_order_of_the_race([0.9] * 16 + [0.1] * 16)])
    backend = Shuffled(table, lambda line: 0)
    before = in_order_of_the_race([1.0] * 16 + [0.0] * 16)
    (runner,) = racing(table, Ucb(block=16), backend, bar=Bar(tuple(before), (0.01,)))
    assert runner.dropped
    assert len(runner.traces) == 16
    assert 0 < len(backend.cancelled) < 16


# ── policies ─────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=100)
@given(tables, st.sampled_from(SMALL), st.integers(0, 1000), st.booleans())
def test_what_a_policy_says_of_bounds_holds_for_all_within_and_needs_nothing_of_the_beaten(
    table: Table, policy: Policy, seed: int, graded: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = table.chances.round(2) if graded else table.chances.round()
    runners, count = values.shape
    seen = int(rng.integers(1, count))
    before = Standing(tuple(values[:, :seen]), tuple(range(runners)), count)
    further = policy.heat(before, finish=True)
    ends = [seen + further.get(runner, 0) for runner in range(runners)]
    losses = tuple(rng.random(runners))

    def beaten(known: Sequence[Any]) -> set[int]:
        low, high = ([np.where(known[n], values[n, :end], by) for n, end in enumerate(ends)] for by in (0.0, 1.0))
        ties = tuple(loss if known[n].all() else math.nan for n, loss in enumerate(losses))
        return set(policy.beaten(before, Prospect(tuple(low), tuple(high), ties)))

    whole = beaten([np.ones(end, dtype=bool) for end in ends])
    known = [(np.arange(end) < seen) | (rng.random(end) < rng.random()) for end in ends]
    early = beaten(known)
    assert early <= whole
    others = [known[n] if n in early else np.ones(end, dtype=bool) for n, end in enumerate(ends)]
    assert beaten(others) == whole


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("finish", [True, False])
def test_every_policy_finds_a_clearly_better_program_and_ends(policy: Policy, finish: bool) -> None:
    table = Table([[0.1] * 100, [0.9] * 100, [0.1] * 50 + [0.4] * 50])
    runners = racing(table, policy, finish=finish)
    assert best(runners) == 1
    assert best_finished(runners) == (1 if finish else None)
    assert runners[1].finished == finish
    assert all(len(runner.traces) < 100 for number, runner in enumerate(runners) if number != 1)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(("runners", "count"), [(1, 40), (3, 1), (2, 7), (5, 26)])
def test_every_policy_copes_with_few_runners_and_few_rows(policy: Policy, runners: int, count: int) -> None:
    table = skilled(np.random.default_rng(0), runners, count)
    found = racing(table, policy)
    winner = best_finished(found)
    assert winner is not None
    assert found[winner].finished
    assert all(runner.traces for runner in found)


def test_halving_lets_the_better_half_go_on_to_twice_the_rows() -> None:
    values = np.array([[1.0, 0, 0, 0] * 25, [1.0] * 100, [0.0] * 100, [1.0, 1, 1, 0] * 25, [1.0, 1, 0, 0] * 25])
    policy, standing = Halving(first=12), Standing(tuple(values[:, :0]), (0, 1, 2, 3, 4), 100)
    assert policy.heat(standing, True) == dict.fromkeys(range(5), 12)
    assert policy.beaten(standing, known(values[:, :12])) == {0, 2}
    later = Standing(tuple(values[:, :12]), (1, 3, 4), 100)
    assert policy.heat(later, True) == dict.fromkeys((1, 3, 4), 12)
    last = Standing(tuple(values[:, :24]), (1,), 100)
    assert policy.heat(last, True) == {1: 76}
    assert policy.heat(last, False) == {}


def test_ties_in_halving_go_to_the_lower_loss_and_then_to_the_earlier_runner() -> None:
    values, standing = np.ones((4, 10)), Standing((np.zeros(0),) * 4, (0, 1, 2, 3), 100)
    assert Halving().beaten(standing, known(values)) == {2, 3}
    assert Halving().beaten(standing, known(values, (0.4, 0.3, 0.2, 0.2))) == {0, 1}


def test_the_level_of_paired_tests_is_spent_over_looks_and_runners() -> None:
    """7 wins of 7 have a p-value of 0.0078: enough alone at 4 looks, not against two rivals, nor at 25 looks."""
    wins = np.repeat([[1.0], [0.0]], 25, axis=1)
    wins[1, 7:] = 1.0
    two, three = (Standing((np.zeros(0),) * count, tuple(range(count)), 100) for count in (2, 3))
    policy = Paired(block=25, level=0.04)
    assert policy.beaten(two, known(wins)) == {1}
    assert policy.beaten(three, known(np.vstack([wins, wins[1:]]))) == set()
    assert Paired(block=4, level=0.04).beaten(two, known(wins)) == set()


def test_paired_races_seldom_lose_the_best_program_of_a_population() -> None:
    """Two programs that are equally good: the first drops out in at most the level of races."""
    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(100):
        scores = (rng.random((2, 48)) < 0.5).astype(float)
        lost += races_simulated.raced(scores, None, Paired(block=6, level=0.2), rng).dropped == (0,)
    assert 0 < lost / 100 <= 0.2


def test_the_highest_bound_sees_the_next_block_and_margins_close_with_the_rows() -> None:
    values = [np.array([1.0, 0.0] * 10), np.array([1.0] * 8 + [0.0] * 2), np.array([0.0] * 10)]
    standing = Standing(tuple(values), (0, 1, 2), 40)
    assert Ucb().heat(standing, True) == {1: 10}
    full = [np.tile([1.0, 0, 1], 14)[:40], np.array([1.0] * 9 + [0.0] * 11), np.array([0.0] * 10)]
    assert Ucb().heat(Standing(tuple(full), (0, 1, 2), 40), True) == {}, "nobody is likely to pass a finished one"
    assert Ucb(doubt=0.001).heat(Standing(tuple(full), (0, 1, 2), 40), True) == {1: 10}


def test_where_the_bar_took_out_whoever_is_likely_the_best_a_race_by_bounds_is_over() -> None:
    values = (np.array([1.0] * 9 + [0.0]), np.array([1.0, 0.0] * 5), np.array([0.0] * 10))
    assert Ucb().heat(Standing(values, (0, 1, 2), 40), True) == {0: 10}
    assert Ucb().heat(Standing(values, (1, 2), 40), True) == {}
    assert Ucb().heat(Standing(values, (0, 1), 40), True) == {0: 10}, "nobody need fear one that is far behind"


def known(values: Values, losses: Sequence[float] | None = None) -> Prospect:
    return Prospect(tuple(values), tuple(values), tuple(losses or [0.5] * len(values)))


# ── the bar ──────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(10, 30), st.sampled_from([0.2, 0.05, 0.01]), st.booleans())
def test_the_bar_takes_nobody_out_that_would_be_accepted(seed: int, count: int, level: float, graded: bool) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.random(count) < 0.4, rng.random(count) < rng.uniform(0.4, 1.0)
    incumbent, candidate = (
        (np.where(right, rng.uniform(0.5, 1, count), rng.uniform(0, 0.5, count)) if graded else right.astype(float))
        for right in (before, after)
    )
    p_value = paired_permutation_p(candidate.tolist(), incumbent.tolist(), rng)
    bar = Bar(tuple(incumbent), (level,))
    reached = [bar.within_reach(0, candidate[:seen], 0.0, 1.0) for seen in range(count + 1)]
    assert reached == sorted(reached, reverse=True), "what is out of reach stays so"
    if p_value <= level * (0.9 if graded else 1):  # the p-value of graded scores is an estimate
        assert reached[-1]
    elif not graded:
        assert not reached[-1]


def test_where_nobody_can_pass_the_bar_the_race_ends() -> None:
    """With 6 wrong answers 6 wins are the most there can be, and the last of 3 runners needs less than their 0.016."""
    table = Table([[0.9] * 60, [0.1, 0.9] * 30, [0.1] * 60])
    with Runtime({"task": ScriptedBackend(table)}, Store(":memory:")) as runtime:
        bar = Bar((0.0,) * 6 + (1.0,) * 54, levels_of(1, 3)[-1:] * 3)
        flow = race(table.programs, table.dev, run, score, DEFAULT, np.random.default_rng(0), bar)
        runners = runtime.run(flow)
        assert runtime.usage.calls == 30, "the first heat is for everybody"
    assert all(runner.dropped for runner in runners)
    assert best_finished(runners) is None
    assert best(runners) is None


# ── races ────────────────────────────────────────────────────────────────────────────────────────


def test_a_race_sees_the_rows_in_an_order_of_its_own_and_gives_them_in_that_of_dev() -> None:
    table = Table([[0.1] * 50 + [0.9] * 50, [0.9] * 50 + [0.2] * 50])
    runners = racing(table, Halving(first=20))
    seen = [int(trace.example.id.split()[1]) for trace in runners[1].traces]
    assert seen == sorted(seen)
    assert min(seen) < 40 < 60 < max(seen), "a fair sample, not the first rows"
    assert [runner.values for runner in runners] == [tuple(runner.scores) for runner in runners]


def test_programs_that_carry_state_see_all_of_dev_at_once_and_in_order() -> None:
    text = Input("text")
    layer = Predict("Say yes.", output="answer", choices=("no", "yes"))
    programs = [Program(layer(text, Memory(write="window")(text))), program(0)]
    flow = race(programs, rows(30), run, score, Paired(block=5), np.random.default_rng(0))
    with Runtime({"task": ScriptedBackend(lambda request, prompt: [0.0, 1.0])}, Store(":memory:")) as runtime:
        runners = runtime.run(flow)
    for runner in runners:
        assert [trace.example.id for trace in runner.traces] == [f"row {row}" for row in range(30)]
        assert not runner.dropped
    remembered = [trace.steps[0].outputs["memory"] for trace in runners[0].traces]
    assert all(f"row {row - 1}" in shown for row, shown in enumerate(remembered) if row)


def test_a_value_beyond_the_bounds_of_a_race_is_an_error_that_names_the_example() -> None:
    with pytest.raises(ContentError, match=r"example row \d+ is worth 3 to the race, expected 0 to 1"):
        racing(Table([[0.9] * 10]), DEFAULT, value=lambda trace: 3.0)
    assert racing(Table([[0.9] * 10]), DEFAULT, value=lambda trace: 3.0, most=3.0)[0].finished


@given(st.lists(st.integers(-4, 4), max_size=11))
def test_the_exact_p_value_is_the_share_of_sign_flips_that_reach_the_sum(differences: list[int]) -> None:
    sizes = [abs(value) for value in differences]
    sums = [
        sum(map(math.prod, zip(signs, sizes, strict=True))) for signs in itertools.product((1, -1), repeat=len(sizes))
    ]
    share = sum(total >= sum(differences) for total in sums) / len(sums)
    assert exact_permutation_p(np.array(differences, dtype=np.int64)) == pytest.approx(share, abs=1e-12)
    for place in range(len(differences)):
        more = np.array([*differences[:place], differences[place] + 1, *differences[place + 1 :]], dtype=np.int64)
        assert exact_permutation_p(more) <= exact_permutation_p(np.array(differences, dtype=np.int64)) + 1e-12


# ── what races are worth, on scores made up ──────────────────────────────────────────────────────


def test_the_default_finds_the_best_of_many_for_a_fraction_of_the_executions() -> None:
    rng = np.random.default_rng(3)
    skills, hardness = rng.normal(0, 1.0, (24, 1)), rng.normal(0, 1.0, (1, 200))
    scores = (rng.random((24, 200)) < 1 / (1 + np.exp(hardness - skills))).astype(float)
    found: Mapping[int, races_simulated.Figures] = {
        runners: races_simulated.figures(scores, None, DEFAULT, runners, range(10)) for runners in (8, 24)
    }
    for figures in found.values():
        assert figures.same >= 0.9
        assert figures.share <= 0.3


def test_runs_in_which_nothing_is_better_accept_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    found = races_simulated.null_figures(DEFAULT, 60, 0.3, rng, rows=60, rounds=3, raced_by=4)
    assert found.accepted <= ALPHA
    assert found.share < 0.6
