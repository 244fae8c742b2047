"""Flows that are given up while others go on, and calls that are cancelled one by one, wherever they are by then."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support_shuffled import Shuffled
from test_scheduler import Bench, asked_strategy, likelihood, prompts_strategy, written
from test_writing import Desk, request_strategy

from engine.flows import Flow, ask, observed, together, varied, while_useful
from engine.inference.backend import rounded
from engine.inference.local.cells import _GRAVE
from engine.inference.local.choices import Tokens
from engine.inference.local.jobs import Job
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Generate, Plain, Request
from engine.store.store import Store


def echo(request: Request, prompt: str) -> str:
    return prompt.upper()


def chain(*texts: str) -> Flow[str]:
    """One call after the other; what the last one said."""
    answer = ""
    for text in texts:
        completion = yield from ask(Generate(Plain(text), max_tokens=4))
        answer = completion.text or ""
    return answer


def nothing(place: int, result: Any) -> Sequence[int]:
    return ()


def once(ended: int, useless: Sequence[int]) -> Callable[[int, Any], Sequence[int]]:
    """When one flow has ended, others are of no use any more."""
    return lambda place, result: useless if place == ended else ()


def shortest(line: Sequence[str]) -> int:
    """Short prompts are answered first."""
    return min(range(len(line)), key=lambda place: (len(line[place]), place))


# ── flows ────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_with_nothing_to_drop_flows_run_to_their_ends(seed: int, lengths: list[int]) -> None:
    texts = [[f"{number} {step}" for step in range(length)] for number, length in enumerate(lengths)]
    found, usage = Shuffled(echo, seed).run(while_useful([chain(*one) for one in texts], nothing))
    assert found == [one[-1] for one in texts]
    assert usage.calls == sum(lengths)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5, 1.0]), st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_the_first_to_end_makes_all_others_useless_and_their_calls_are_cancelled(
    seed: int, late: float, lengths: list[int]
) -> None:
    texts = [[f"{number} {step}" for step in range(length)] for number, length in enumerate(lengths)]
    backend = Shuffled(echo, seed, late)
    winners: list[int] = []

    def first_wins(place: int, result: str) -> Sequence[int]:
        winners.append(place)
        return [other for other in range(len(lengths)) if other != winners[0]]

    found, usage = backend.run(while_useful([chain(*one) for one in texts], first_wins))
    assert found == [one[-1] if place == winners[0] else None for place, one in enumerate(texts)]
    assert len(backend.answered) + len(backend.cancelled) <= usage.calls, "what was asked counts as asked"
    for one in texts:
        sent = [text for text in one if text in backend.answered + backend.cancelled]
        assert sent == one[: len(sent)]


def test_nothing_is_asked_for_a_flow_that_was_given_up_and_the_rest_goes_on() -> None:
    backend = Shuffled(echo, shortest)
    flows = [chain("a"), chain("long one", "never"), chain("bb", "and on")]
    found, usage = backend.run(while_useful(flows, once(0, [1])))
    assert found == ["A", None, "AND ON"]
    assert backend.cancelled == ["long one"]
    assert backend.answered == ["a", "bb", "and on"]
    assert usage.calls == 4


def test_a_call_that_another_flow_waits_for_goes_on() -> None:
    backend = Shuffled(echo, shortest)
    found, usage = backend.run(while_useful([chain("a"), chain("shared"), chain("shared")], once(0, [1])))
    assert found == ["A", None, "SHARED"]
    assert backend.cancelled == []
    assert (usage.calls, usage.cached_calls) == (3, 1)


def test_flows_within_a_flow_that_is_given_up_are_given_up_with_it() -> None:
    def nested() -> Flow[Any]:
        inner = together([chain("inner call", "never"), while_useful([chain("another inner")], nothing)])
        return (yield from while_useful([inner, chain("third inner call")], nothing))

    backend = Shuffled(echo, shortest)
    found, _ = backend.run(together([while_useful([chain("a"), nested()], once(0, [1])), chain("outside")]))
    assert found == [["A", None], "OUTSIDE"]
    assert sorted(backend.cancelled) == ["another inner", "inner call", "third inner call"]


def test_what_has_ended_may_be_given_up_all_the_same() -> None:
    found, _ = Shuffled(echo, shortest).run(while_useful([chain("a"), chain("bb")], once(1, [0])))
    assert found == [None, "BB"]
    found, _ = Shuffled(echo, shortest).run(while_useful([chain("a"), chain("bb")], once(1, [0, 1])))
    assert found == [None, None]


def test_tokens_count_alike_whenever_flows_were_given_up() -> None:
    """Two flows of one word a call end; the third counts as one of them, though its calls have more words."""
    counted = set()
    for seed in range(20):
        flows = [chain("a", "b"), chain("c"), chain("three words each", "or four of them")]
        backend = Shuffled(echo, seed, late=0.5 * (seed % 2))
        found, usage = backend.run(while_useful(flows, lambda place, result: [2]))
        assert found == ["B", "C", None]
        counted.add((usage.prompt_tokens, usage.generated_tokens))
    assert counted == {(3 + 3 // 2, 3 + 3 // 2)}


def test_calls_that_were_never_handed_over_are_taken_out_of_the_queue() -> None:
    handed: list[str] = []

    class Noting(ScriptedBackend):
        def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
            handed.extend(prepared.prompt for _, prepared in asked)
            super().submit(asked, reply)

    with Runtime({"task": Noting(echo)}, Store(":memory:")) as runtime:
        runtime.run(chain("known"))
        handed.clear()
        assert runtime.run(while_useful([chain("new"), chain("known")], once(1, [0]))) == [None, "KNOWN"]
        assert handed == []
        assert runtime.run(chain("new")) == "NEW", "it can be asked later"


def test_a_cancelled_call_can_be_asked_again_even_if_its_answer_comes_all_the_same() -> None:
    def again() -> Flow[list[str | None]]:
        first = yield from while_useful([chain("a"), chain("again")], once(0, [1]))
        return [*first, (yield from chain("again", "after"))]

    for late in (0.0, 1.0):
        backend = Shuffled(echo, shortest, late)
        found, _ = backend.run(again())
        assert found == ["A", None, "AFTER"]
        assert backend.answered.count("again") <= 2


def test_an_answer_that_comes_too_late_is_stored() -> None:
    with Store(":memory:") as store:
        backend = Shuffled(echo, shortest, late=1.0)
        flow = together([while_useful([chain("a"), chain("late")], once(0, [1])), chain("somewhat longer")])
        with Runtime({"task": backend}, store) as runtime:
            runtime.run(flow, watch=lambda usage, open_requests: backend.answer_one())
            assert backend.answered == ["a", "late", "somewhat longer"]
            assert store.calls_paid() == (3, 3)


def test_an_observed_flow_tells_the_calls_of_what_was_not_given_up() -> None:
    def watched() -> Flow[Any]:
        return (yield from while_useful([chain("a"), chain("bb", "ccc")], once(0, [1])))

    for seed in range(20):
        done: list[Completion] = []
        backend = Shuffled(echo, seed)
        found, _ = backend.run(observed(watched(), done))
        expected = [["a"], ["bb", "ccc"]] if found[1] else [["a"]]
        assert [one.key for one in done] == [key for texts in expected for key in backend.keys_of(texts)]


def test_varied_flows_draw_for_themselves_where_some_are_given_up() -> None:
    drawn: list[int] = []

    def script(request: Request, prompt: str) -> str:
        assert isinstance(request, Generate)
        drawn.append(request.sample)
        return "text"

    def drawing() -> Flow[Any]:
        request = Generate(Plain("sampled"), 4, temperature=0.7)
        return (yield from while_useful([ask(request), ask(request)], nothing))

    Shuffled(script, 0).run(together([varied(drawing(), number) for number in range(3)]))
    assert len(drawn) == len(set(drawn)) == 3


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(
    st.lists(asked_strategy, min_size=1, max_size=16),
    st.integers(60, 200),
    st.integers(8, 48),
    st.integers(0, 12),
    st.sets(st.integers(0, 15), max_size=8),
    st.booleans(),
)
def test_jobs_dropped_at_any_moment_leave_nothing_behind_and_the_others_as_they_were(
    asked: list[tuple[Tokens, list[Tokens] | Generate, bool]],
    cells: int,
    batch_rows: int,
    steps: int,
    dropped: Collection[int],
    ordered: bool,
) -> None:
    bench = Bench(cells, batch_rows, 8, ordered)
    jobs: dict[str, Job] = {}
    expected: dict[str, tuple[float, ...] | int | str] = {}
    for number, (prompt, wanted, one) in enumerate(asked):
        key = str(number)
        if isinstance(wanted, Generate):
            jobs[key], expected[key] = bench.generate(key, prompt, wanted), written(prompt, wanted)
        else:
            scores = tuple(rounded(likelihood(prompt, label, wanted)) for label in wanted)
            jobs[key] = bench.winner(key, prompt, wanted) if one else bench.score(key, prompt, wanted)
            expected[key] = scores.index(max(scores)) if one else scores
        if bench.scheduler.refusal(jobs[key]) is not None:
            del jobs[key], expected[key]
    bench.scheduler.add(jobs.values())
    for _ in range(steps):
        if bench.scheduler.busy:
            bench.step()
    before = set(bench.done)
    bench.scheduler.drop([str(number) for number in dropped])
    done = bench.run([])
    assert done.keys() == expected.keys() - ({str(number) for number in dropped} - before)
    for key, completion in done.items():
        assert expected[key] in (completion.text, completion.loglikelihoods, completion.winner)
    nodes = {node.sequence for node in bench.scheduler._cells.tree} - {None}
    assert bench.context.held - {_GRAVE} == nodes, "every other sequence is free again"
    assert not bench.scheduler._started


@settings(max_examples=40)
@given(
    st.lists(st.tuples(prompts_strategy, request_strategy), min_size=1, max_size=16),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 30),
    st.sets(st.integers(0, 15), max_size=8),
)
def test_texts_dropped_at_any_moment_free_their_streams_and_the_others_are_written_on(
    asked: list[tuple[Tokens, Generate]], padding: int, parallel: int, steps: int, dropped: Collection[int]
) -> None:
    desk = Desk(padding=padding, parallel=parallel)
    desk.writer.add([desk.job(str(n), prompt, request) for n, (prompt, request) in enumerate(asked)])
    done = {}
    for _ in range(steps):
        if desk.writer.busy:
            done |= {completion.key: completion for completion in desk.writer.step()}
    gone = {str(number) for number in dropped} - done.keys()
    desk.writer.drop(gone)
    texts = len(desk.writer._texts)
    assert all(context.held <= set(range(texts)) for context in desk.opened[-1:]), "streams of others alone are held"
    done |= desk.run([])
    assert {key: completion.text for key, completion in done.items()} == {
        str(n): written(prompt, request) for n, (prompt, request) in enumerate(asked) if str(n) not in gone
    }
    assert not desk.writer._started
