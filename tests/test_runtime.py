"""The runtime on scripted backends: what is asked together is asked once, nothing is used before it is stored."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BudgetSpent, ModelError
from engine.flows import Flow, Together, ask, keep, observed, together, varied
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, Script, ScriptedBackend
from engine.inference.service import Prepared, Reply
from engine.inference.usage import Usage
from engine.records import Chat, Completion, Count, Example, Generate, Message, Plain, Prediction, Request, Score, Trace
from engine.store.store import Store


class Recording:
    """A script that answers with what the prompt ends in, and remembers every prompt it was asked."""

    def __init__(self, answer: Callable[[str], str] = str.upper) -> None:
        self.prompts: list[str] = []
        self._answer = answer

    def __call__(self, request: Request, prompt: str) -> Answer:
        self.prompts.append(prompt)
        return [0.0] * len(request.continuations) if isinstance(request, Score) else self._answer(prompt)


class Closing(ScriptedBackend):
    """A backend that counts how often it was told to drop things, and closed."""

    closed = cancelled = 0

    def cancel(self, keys: Collection[str] | None = None) -> None:
        self.cancelled += 1

    def close(self) -> None:
        self.closed += 1


def opened(script: Recording, path: Path | str = ":memory:") -> Runtime:
    return Runtime({"task": ScriptedBackend(script)}, Store(path))


def say(text: str) -> Generate:
    return Generate(Plain(text), max_tokens=4)


def said(text: str) -> Flow[str]:
    completion = yield from ask(say(text))
    return completion.text or ""


def trace_of(text: str) -> Trace:
    return Trace("program", Example(text, {"text": text}, ("yes",)), (), Prediction(text), 1.0)


def stored(path: Path, table: str) -> list[Any]:
    """Rows of a table, read by a connection of its own."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return database.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        database.close()


# ── driving flows ────────────────────────────────────────────────────────────────────────────────


def test_results_come_in_the_order_of_the_flows_not_of_their_lengths() -> None:
    def chain(length: int) -> Flow[int]:
        for number in range(length):
            yield from said(f"{length} {number}")
        return length

    lengths = [3, 0, 5, 1, 2, 4]
    with opened(Recording()) as runtime:
        assert runtime.run(together([chain(length) for length in lengths])) == lengths


@given(st.recursive(st.integers(0, 30), lambda inner: st.lists(inner, max_size=4), max_leaves=25))
def test_nested_flows_give_their_nested_results_and_ask_each_thing_once(tree: Any) -> None:
    def walk(node: Any) -> Flow[Any]:
        if isinstance(node, int):
            return int((yield from said(str(node))))
        return (yield from together([walk(child) for child in node]))

    def leaves(node: Any) -> list[int]:
        return [node] if isinstance(node, int) else [leaf for child in node for leaf in leaves(child)]

    script = Recording()
    with opened(script) as runtime:
        assert runtime.run(walk(tree)) == tree
    assert sorted(script.prompts) == sorted({str(leaf) for leaf in leaves(tree)})


def test_what_is_asked_together_reaches_the_backend_in_one_batch() -> None:
    batches: list[int] = []

    class Counting(ScriptedBackend):
        def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
            batches.append(len(asked))
            super().submit(asked, reply)

    def nested(name: str) -> Flow[list[str]]:
        return (yield from together([said(f"{name} {number}") for number in range(3)]))

    with Runtime({"task": Counting(Recording())}, Store(":memory:")) as runtime:
        runtime.run(together([nested("a"), nested("b"), nested("c")]))
    assert batches == [9]


@pytest.mark.parametrize("flow", [together([]), (x for x in [Together(())])])
def test_nothing_together_is_done_at_once(flow: Flow[Any]) -> None:
    with opened(Recording()) as runtime:
        assert runtime.run(flow) in ([], None)
        assert runtime.usage.calls == 0


def test_a_flow_that_asks_nothing_gives_its_result() -> None:
    def silent() -> Flow[str]:
        yield from ()
        return "done"

    with opened(Recording()) as runtime:
        assert runtime.run(silent()) == "done"


def test_an_observed_flow_behaves_alike_and_tells_its_calls() -> None:
    def pair() -> Flow[list[str]]:
        first = yield from said("a")
        return [first, *(yield from together([said("b"), said("c")]))]

    done: list[Completion] = []
    with opened(Recording()) as runtime:
        assert runtime.run(observed(pair(), done)) == ["A", "B", "C"]
        assert len({completion.key for completion in done}) == 3
        calls = [runtime.store.call(completion.key) for completion in done]
    assert [call.prompt for call in calls if call] == ["a", "b", "c"]


# ── asking once ──────────────────────────────────────────────────────────────────────────────────


def test_fifty_flows_that_ask_the_same_share_one_call() -> None:
    script = Recording()
    with opened(script) as runtime:
        assert runtime.run(together([said("same") for _ in range(50)])) == ["SAME"] * 50
        assert (runtime.usage.calls, runtime.usage.cached_calls) == (50, 49)
        assert runtime.usage.prompt_tokens == 50
        assert runtime.usage.computed_tokens == 1
    assert script.prompts == ["same"]


def test_a_second_run_is_answered_from_the_store(tmp_path: Path) -> None:
    first, second = Recording(), Recording()
    flows = [f"{number}" for number in range(7)]
    with opened(first, tmp_path / "store.db") as runtime:
        expected = runtime.run(together([said(text) for text in flows]))
        asked = runtime.usage.copy()
    with opened(second, tmp_path / "store.db") as runtime:
        assert runtime.run(together([said(text) for text in flows])) == expected
        again = runtime.usage
        assert (again.calls, again.cached_calls, again.computed_tokens) == (7, 7, 0)
        assert (again.prompt_tokens, again.generated_tokens) == (asked.prompt_tokens, asked.generated_tokens)
    assert len(first.prompts) == 7
    assert second.prompts == []


def test_requests_that_differ_in_anything_are_different_calls() -> None:
    requests: list[Request] = [
        say("a"),
        Generate(Plain("a"), 5),
        Generate(Plain("a"), 4, stop=("x",)),
        Generate(Plain("a"), 4, temperature=0.5),
        Generate(Plain("a"), 4, temperature=0.5, sample=1),
        Generate(Plain("a"), 4, temperature=0.5, top_p=0.5),
        Generate(Plain("a"), 4, grammar='root ::= "x"'),
        Generate(Chat((Message("user", "a"),)), 4),
        Score(Plain("a"), ("x", "y")),
        Score(Plain("a"), ("y", "x")),
        Score(Plain("a"), ("x", "y"), end="\n"),
    ]
    script = Recording()
    with opened(script) as runtime:
        runtime.run(together([ask(request) for request in requests]))
        assert runtime.usage.cached_calls == 0
    assert len(script.prompts) == len(requests)


def test_a_failed_call_is_asked_again_the_next_time() -> None:
    backend = ScriptedBackend(Recording(), context=3)
    with Runtime({"task": backend}, Store(":memory:")) as runtime:
        for _ in range(2):
            completion = runtime.run(ask(say("one two three four")))
            assert "needs 4 tokens, the context holds 3" in (completion.error or "")
        assert (runtime.usage.calls, runtime.usage.cached_calls, runtime.usage.failed_calls) == (2, 0, 2)


def test_counting_tokens_costs_no_call() -> None:
    script = Recording()
    with opened(script) as runtime:
        completion = runtime.run(ask(Count(Plain("one two three"))))
        assert completion == Completion(count=3)
        assert runtime.usage == Usage(seconds=runtime.usage.seconds)
        assert runtime.store.calls_paid() == (0, 0)
    assert script.prompts == []


def test_what_the_template_refuses_is_a_failed_completion() -> None:
    class Refusing(ScriptedBackend):
        def prepare(self, request: Request) -> Prepared:
            raise ModelError("the template refuses this")

    with Runtime({"task": Refusing(Recording())}, Store(":memory:")) as runtime:
        found = runtime.run(together([ask(say("a")), ask(say("b"))]))
    assert [completion.error for completion in found] == ["the template refuses this"] * 2


# ── the store comes first ────────────────────────────────────────────────────────────────────────


def test_a_completion_is_stored_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    seen: list[list[str]] = []

    def look(prompt: str) -> str:
        seen.append(sorted(row[4] for row in stored(path, "calls")))
        return prompt.upper()

    def chain() -> Flow[str]:
        first = yield from said("first")
        return (yield from said(f"second after {first}"))

    with opened(Recording(look), path) as runtime:
        assert runtime.run(chain()) == "SECOND AFTER FIRST"
    assert seen == [[], ["first"]]
    assert sorted(row[4] for row in stored(path, "calls")) == ["first", "second after FIRST"]


def test_kept_traces_are_stored_under_the_name_of_the_run(tmp_path: Path) -> None:
    def traced(text: str) -> Flow[str]:
        answer = yield from said(text)
        yield from keep(trace_of(answer))
        return answer

    path = tmp_path / "store.db"
    with opened(Recording(), path) as runtime:
        runtime.run(together([traced("a"), traced("b")]), run="mine")
        runtime.run(keep(trace_of("alone")))
    with Store(path) as store:
        kept = [(row.run, row.trace.example.id) for row in store.traces()]
    assert sorted(kept) == [("", "alone"), ("mine", "A"), ("mine", "B")]


# ── what ends a run early ────────────────────────────────────────────────────────────────────────


def test_an_exception_in_a_flow_keeps_what_is_finished_and_drops_what_is_queued(tmp_path: Path) -> None:
    def failing() -> Flow[str]:
        yield from said("a")
        raise ZeroDivisionError

    def chain() -> Flow[str]:
        first = yield from said("b")
        return (yield from said(f"never asked after {first}"))

    path, script = tmp_path / "store.db", Recording()
    with opened(script, path) as runtime:
        with pytest.raises(ZeroDivisionError):
            runtime.run(together([chain(), failing()]))
        assert runtime.run(said("c")) == "C", "the runtime goes on"
    assert sorted(row[4] for row in stored(path, "calls")) == ["a", "b", "c"]


class Interrupted(ScriptedBackend):
    """Answers the first request of its second batch, and is then interrupted."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.batches = self.cancelled = 0

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        self.batches += 1
        if self.batches == 2:
            super().submit(asked[:1], reply)
            raise KeyboardInterrupt
        super().submit(asked, reply)

    def cancel(self, keys: Collection[str] | None = None) -> None:
        self.cancelled += 1


def test_an_interrupt_keeps_every_finished_call(tmp_path: Path) -> None:
    def chain(name: str) -> Flow[str]:
        first = yield from said(name)
        return (yield from said(f"{first} again"))

    path = tmp_path / "store.db"
    backend = Interrupted(Recording())
    with Runtime({"task": backend}, Store(path)) as runtime, pytest.raises(KeyboardInterrupt):
        runtime.run(together([chain("a"), chain("b")]))
    assert backend.cancelled == 1
    assert sorted(row[4] for row in stored(path, "calls")) == ["A again", "a", "b"]


def test_a_flow_goes_on_while_others_still_wait() -> None:
    class Slow(ScriptedBackend):
        """Keeps the request `slow` back until something was asked after it."""

        def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
            kept = [item for item in asked if item[1].prompt == "slow"]
            super().submit([item for item in asked if item not in kept], reply)
            if kept:
                self.kept = kept
            elif any(prepared.prompt == "third" for _, prepared in asked):
                super().submit(self.kept, reply)

    def chain() -> Flow[str]:
        for text in ("first", "second", "third"):
            answer = yield from said(text)
        return answer

    with Runtime({"task": Slow(Recording())}, Store(":memory:")) as runtime:
        assert runtime.run(together([said("slow"), chain()])) == ["SLOW", "THIRD"]


def test_what_allow_raises_ends_the_run_and_finished_calls_are_stored(tmp_path: Path) -> None:
    def allow(usage: Usage) -> None:
        if usage.calls >= 6:
            raise BudgetSpent("enough")

    def chain(name: str) -> Flow[None]:
        for number in range(10):
            yield from said(f"{name} {number}")

    path, script = tmp_path / "store.db", Recording()
    with opened(script, path) as runtime:
        with pytest.raises(BudgetSpent):
            runtime.run(together([chain("a"), chain("b")]), allow=allow)
        assert runtime.usage.calls == 6
    assert sorted(row[4] for row in stored(path, "calls")) == sorted(f"{name} {n}" for name in "ab" for n in range(3))
    assert len(script.prompts) == 6


def test_allow_is_asked_before_every_request() -> None:
    def allow(usage: Usage) -> None:
        if usage.calls >= 4:
            raise BudgetSpent("enough")

    script = Recording()
    with opened(script) as runtime:
        with pytest.raises(BudgetSpent):
            runtime.run(together([said(str(number)) for number in range(10)]), allow=allow)
        assert runtime.usage.calls == 4
    assert script.prompts == [], "a batch that may not be asked whole is not asked at all"


def test_allow_is_asked_at_the_end_too_so_that_a_replay_ends_alike(tmp_path: Path) -> None:
    def allow(usage: Usage) -> None:
        if usage.prompt_tokens >= 2:
            raise BudgetSpent("enough")

    for _ in range(2):
        with opened(Recording(), tmp_path / "store.db") as runtime, pytest.raises(BudgetSpent):
            runtime.run(said("two words"), allow=allow)


def test_watch_is_told_the_totals_and_what_is_open() -> None:
    told: list[tuple[int, int]] = []

    def watch(usage: Usage, open_requests: int) -> None:
        told.append((usage.calls, open_requests))

    with opened(Recording()) as runtime:
        runtime.run(together([said("a"), said("b")]), watch=watch)
    assert told == [(2, 0)]


# ── two backends ─────────────────────────────────────────────────────────────────────────────────


def test_the_optimizer_role_goes_to_the_other_backend() -> None:
    task, optimizer = Recording(), Recording(str.lower)
    backends = {"task": ScriptedBackend(task, "one"), "optimizer": ScriptedBackend(optimizer, "two")}
    flow = together([ask(say("Hi")), ask(Generate(Plain("Hi"), 4, role="optimizer"))])
    with Runtime(backends, Store(":memory:")) as runtime:  # type: ignore[arg-type]
        assert [completion.text for completion in runtime.run(flow)] == ["HI", "hi"]
        assert runtime.usage.cached_calls == 0
        assert runtime.usage.computed_tokens == 2
    assert task.prompts == optimizer.prompts == ["Hi"]


def test_without_an_optimizer_its_role_is_the_tasks_and_its_calls_are_shared() -> None:
    script = Recording()
    flow = together([ask(say("Hi")), ask(Generate(Plain("Hi"), 4, role="optimizer"))])
    with opened(script) as runtime:
        runtime.run(flow)
        assert runtime.backend("optimizer") is runtime.backend("task")
    assert script.prompts == ["Hi"]


def test_both_backends_are_cancelled_and_closed() -> None:
    def failing() -> Flow[str]:
        yield from said("a")
        raise ZeroDivisionError

    task, optimizer = Closing(Recording(), "one"), Closing(Recording(), "two")
    with (
        Runtime({"task": task, "optimizer": optimizer}, Store(":memory:")) as runtime,
        pytest.raises(ZeroDivisionError),
    ):
        runtime.run(together([failing(), ask(Generate(Plain("wait"), 4, role="optimizer"))]))
    assert (task.cancelled, optimizer.cancelled) == (1, 1)
    assert task.closed >= 1
    assert optimizer.closed >= 1


def test_closing_twice_is_harmless() -> None:
    runtime = opened(Recording())
    runtime.close()
    runtime.close()


def test_usage_since_an_earlier_state_is_the_difference() -> None:
    with opened(Recording()) as runtime:
        runtime.run(said("a"))
        before = runtime.usage.copy()
        runtime.run(together([said("a"), said("b c")]))
        spent = runtime.usage.since(before)
    assert (spent.calls, spent.cached_calls, spent.prompt_tokens, spent.computed_tokens) == (2, 1, 3, 2)
    assert spent.tokens == spent.prompt_tokens + spent.generated_tokens
    assert 0 <= spent.seconds <= runtime.usage.seconds


def test_varied_flows_draw_for_themselves_at_any_depth_and_greedy_requests_stay_shared() -> None:
    drawn: list[int] = []

    def script(request: Request, prompt: str) -> str:
        assert isinstance(request, Generate)
        drawn.append(request.sample)
        return "text"

    def both() -> Flow[Any]:
        sampled = Generate(Plain("sampled"), 4, temperature=0.7)
        found = yield from together([ask(sampled), ask(Generate(Plain("greedy"), 4))])
        return found

    def twice(flow: Callable[[], Flow[Any]]) -> Flow[Any]:
        found = yield from together([varied(flow(), number) for number in range(2)])
        return found

    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        runtime.run(twice(lambda: twice(both)))
    assert len(drawn) == len(set(drawn)) == 5, "four draws, and one greedy answer for all"
    assert drawn.count(0) == 1
