"""Failures: every kind from real executions, where it is blamed, and that every failure is in exactly one cluster."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_layers import Script

from engine.feedback.diagnosis import Diagnosis, diagnose, has_failed, holds
from engine.feedback.failures import Cluster, clustered, failures, summary
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.inference.service import Service
from engine.program.graph import Program
from engine.program.layer import Input, Layer
from engine.program.layers import (
    Agent,
    Code,
    Parallel,
    Predict,
    Refine,
    Retrieve,
    Route,
    RunCode,
    Sequential,
    Sql,
    Tool,
    ToolCall,
    TreeSearch,
    Vote,
)  # fmt: skip
from engine.records import Completion, Example, Generate, Prediction, Role, Trace
from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Embedder
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, write_recipe
from engine.retrieval.service import RetrievalService
from engine.sandbox.service import SandboxService
from engine.store.store import Store
from engine.tasks.metrics import METRICS, Metric
from engine.tools.service import ToolService

EXACT = METRICS["exact_match"]
QUESTION = Input("question")
OSLO = Example("1", {"question": "What is the capital of Norway?"}, ("Oslo", "Christiania"))

Services = Mapping[Role, Service]


def executed(
    program: Program, answers: Mapping[str, Any], *examples: Example, services: Services | None = None,
    metric: Metric = EXACT, store: str | Path = ":memory:",
) -> list[Trace]:  # fmt: skip
    """Executions of a program whose model answers as scripted."""
    with Runtime({"task": ScriptedBackend(Script(answers))}, Store(store), services) as runtime:
        return runtime.run(forward(program, examples, metric))


def diagnosed(program: Program, answers: Mapping[str, Any], services: Services | None = None) -> Diagnosis:
    """What went wrong where Oslo was asked for."""
    (trace,) = executed(program, answers, OSLO, services=services)
    assert has_failed(trace)
    (cluster,) = failures(program, [trace])
    assert cluster.traces == (trace,)
    return Diagnosis(cluster.node, cluster.kind, cluster.label)


def alone(layer: Layer) -> Program:
    return Program(layer(QUESTION, name="answer"))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────

CITIES = Predict("Which city?", choices=("Oslo", "Bergen", "Rome"))


@pytest.mark.parametrize(
    "layer", [CITIES, replace(CITIES, scores="winner"), Refine(replace(CITIES, scores="winner"), rounds=1)]
)
def test_a_wrong_label_is_told_by_what_was_expected_and_what_was_chosen(layer: Layer) -> None:
    answers = {"Which city?": [-2.0, -1.0, -3.0], "say what is wrong": "ok"}
    assert diagnosed(alone(layer), answers) == Diagnosis("answer", "wrong label", "Oslo → Bergen")


def test_a_right_label_that_is_not_likely_enough_is_unsure() -> None:
    program = alone(CITIES)
    traces = executed(program, {"Which city?": [-1.0, -2.0, -3.0]}, OSLO, metric=METRICS["choice_likelihood"])
    assert 0 < traces[0].score < 1
    assert diagnose(program, traces[0]) == Diagnosis("answer", "unsure", "Oslo")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" \n", "empty"),
        ("The capital is  OSLO, of course.", "too long"),
        ("Christiania or Oslo", "too long"),
        ("Osloites live there", "other"),
        ("Bergen", "other"),
    ],
)
def test_wrong_open_text_is_empty_too_long_or_something_else(text: str, label: str) -> None:
    found = diagnosed(alone(Predict("Answer it.")), {"Answer it.": text})
    assert found == Diagnosis("answer", "wrong answer", label)


@pytest.mark.parametrize(
    ("text", "answer", "inside"),
    [
        ("it is 14", "4", False),
        ("it is 3.4", "4", False),
        ("it is 4.", "4", True),
        ("4,000 of them", "4", False),
        ("in\nNew   York!", "new york", True),
        ("東京都にある", "東京", True),
        ("the élan", "lan", False),
        ("50% off", "50%", True),
        ("anything", "", False),
    ],
)
def test_an_answer_stands_in_a_text_as_words_of_its_own(text: str, answer: str, inside: bool) -> None:
    assert holds(text, [answer]) is inside


@given(st.text(max_size=20), st.text(max_size=8), st.text(max_size=20))
def test_an_answer_between_spaces_is_always_found(before: str, answer: str, after: str) -> None:
    assert holds(f"{before} {answer} {after}", [answer]) is bool(answer.split())


class Capped(ScriptedBackend):
    """Ends a text at the most tokens it may have, as a model does; a token is a word."""

    def _complete(self, key: str, prepared: Any) -> Completion:
        done = super()._complete(key, prepared)
        words = (done.text or "").split(" ")
        if not isinstance(prepared.request, Generate) or len(words) <= prepared.request.max_tokens:
            return done
        return replace(done, text=" ".join(words[: prepared.request.max_tokens]), finish="length")


def test_a_reply_that_was_cut_off_is_truncated_where_that_is_known() -> None:
    steps = Sequential({"plan": Predict("Plan.", output={"plan": {"list": "text"}}, max_tokens=3)})
    texts = Predict("Think.", output=("reasoning", "answer"), max_tokens=3)
    open_text = Predict("Answer it.", max_tokens=3)
    script = Script(
        {
            "Plan.": '["one", "two", "three", "four"',
            "Think.": "because of many things",
            "Answer it.": "It is the capital",
        }
    )
    for layer, name, unaware in (
        (steps, "answer.steps.plan", Diagnosis("answer.steps.plan", "truncated")),
        (texts, "answer", Diagnosis("answer", "unparsed", "the reply lacks a field of reasoning, answer")),
        (open_text, "answer", Diagnosis("answer", "wrong answer", "other")),
    ):
        program = alone(layer)
        with Runtime({"task": Capped(script)}, Store(":memory:")) as runtime:
            (trace,) = runtime.run(forward(program, [OSLO], EXACT))
            keys = [key for step in trace.steps for key in (*step.calls, *(k for i in step.steps for k in i.calls))]
            cut = runtime.store.cut_off([*keys, "no call"])
        assert cut == frozenset(keys)
        assert diagnose(program, trace) == unaware
        assert diagnose(program, trace, cut) == Diagnosis(name, "truncated")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────

NUMBER = Predict("A number.", output={"answer": "int"}, temperature=0.5)
LAWYER, CLERK = Predict("As a lawyer."), Predict("As a clerk.", output={"answer": "int"})


@pytest.mark.parametrize(
    ("layer", "node"),
    [
        (NUMBER, "answer"),
        (Sequential({"plan": LAWYER, "solve": replace(NUMBER, output={"number": "int"})}), "answer.steps.solve"),
        (Vote(NUMBER, n=2), "answer.of 1"),
        (Route(replace(CITIES, choices=("a", "b")), {"a": NUMBER, "b": LAWYER}), "answer.experts.a"),
        (Parallel({"left": LAWYER, "right": Sequential({"in": NUMBER})}), "answer.branches.right.steps.in"),
        (Refine(NUMBER), "answer.of"),
        (TreeSearch(LAWYER, NUMBER, depth=1, branch=1), "answer.answer"),
    ],
)
def test_an_unparsed_reply_is_blamed_on_the_innermost_step(layer: Layer, node: str) -> None:
    answers = {"A number.": "none", "As a lawyer.": "I sue", "Which city?": [-1.0, -2.0], "Do these": [-1.0, -2.0]}
    found = diagnosed(alone(layer), answers)
    assert (found.node, found.kind) == (node, "unparsed")
    assert found.label.endswith("expected a whole number, found '…'")


def test_what_differs_between_messages_does_not_tell_them_apart() -> None:
    program = alone(NUMBER)
    examples = [replace(OSLO, id=str(number), inputs={"question": f"Q{number}"}) for number in range(3)]
    traces = executed(program, {"A number.": lambda request: request.prompt.messages[-1].text}, *examples)
    assert len({trace.prediction.error for trace in traces}) == 3
    (cluster,) = failures(program, traces)
    assert cluster.examples == ("0", "1", "2")


def test_a_prompt_that_is_too_long_is_a_failed_call() -> None:
    program = alone(LAWYER)
    (trace,) = executed(program, {}, replace(OSLO, inputs={"question": "word " * 9000}))
    found = diagnose(program, trace)
    assert found == Diagnosis("answer", "failed call", "the prompt needs # tokens, the context holds #")


def test_an_error_that_no_step_tells_of_is_that_of_the_node_it_names() -> None:
    plan = Predict("Plan.", output="plan")(QUESTION)
    program = Program(Predict("Answer it.")(plan))
    for error, node in (("plan: unparsed: why", "plan"), ("no: such node", "answer"), ("", "answer")):
        trace = Trace(program.fingerprint, OSLO, (), Prediction("", error=error), 0.0)
        assert diagnose(program, trace).node == node


# ── tools, code and queries ──────────────────────────────────────────────────────────────────────

TOOLS = '''
def weather(city: str) -> str:
    """The weather of a city."""
    raise KeyError(city)


def sunny(city: str) -> str:
    """Always the same."""
    return "sunny"
'''


@pytest.fixture
def services(tmp_path: Path) -> Services:
    (tmp_path / "tools.py").write_text(TOOLS)
    database = apsw.Connection(str(tmp_path / "shop.db"))
    database.execute("CREATE TABLE orders (id INTEGER)").fetchall()
    database.close()
    return {"tools": ToolService(tmp_path), "sandbox": SandboxService(tmp_path)}


def turn(thought: str, name: str, **arguments: str) -> str:
    return f" {thought}\nAction: {json.dumps({'name': name, 'arguments': arguments})}"


CALL = json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})


@pytest.mark.parametrize(
    ("layer", "node", "says"),
    [
        (Code("1 / 0"), "answer", "ZeroDivisionError"),
        (Sequential({"run": Code("1 / 0")}), "answer.steps.run", "ZeroDivisionError"),
        (ToolCall(("tools.py:weather",)), "answer.weather", "KeyError: '…'"),
    ],
)
def test_a_tool_or_code_that_fails_is_a_tool_error(services: Services, layer: Layer, node: str, says: str) -> None:
    found = diagnosed(alone(layer), {"": CALL}, services)
    assert (found.node, found.kind) == (node, "tool error")
    assert says in found.label


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (RunCode("result"), "ZeroDivisionError"),
        (RunCode("result", on_error="text"), "ZeroDivisionError"),
        (Sql("shop.db", "result"), "syntax error"),
        (Sql("shop.db", "result", on_error="text"), "syntax error"),
    ],
)
def test_what_a_model_wrote_fails_where_it_is_run_be_it_told_as_text(
    services: Services, runs: Layer, says: str
) -> None:
    code = Predict("Write code.", output="code")(QUESTION)
    program = Program(Predict("Say it.")(QUESTION, runs(code, name="result")))
    found = diagnosed(program, {"Write code.": "1 / 0", "Say it.": "I do not know"}, services)
    assert (found.node, found.kind) == ("result", "tool error")
    assert says in found.label


def test_a_user_s_function_that_fails_is_a_tool_error(services: Services) -> None:
    city = Predict("Name the city.", output="city")(QUESTION)
    program = Program(Tool("tools.py:weather", "answer")(city))
    found = diagnosed(program, {"Name the city.": "Oslo"}, services)
    assert (found.node, found.kind) == ("answer", "tool error")


def test_an_agent_is_to_blame_unless_its_last_tool_failed(services: Services) -> None:
    agent = alone(Agent(("tools.py:weather", "tools.py:sunny")))

    def turns(*names: str) -> Mapping[str, Any]:
        texts = [*(turn("Look.", name, city="Oslo") for name in names), turn("So.", "finish", answer="sunny")]
        return {"": lambda request: texts[str(request.prompt).count("Observation:")]}

    found = diagnosed(agent, turns("sunny", "weather"), services)
    assert (found.node, found.kind) == ("answer.weather 2", "tool error")
    assert diagnosed(agent, turns("weather", "sunny"), services) == Diagnosis("answer", "wrong answer", "other")
    garbled = diagnosed(agent, {"": "no turn"}, services)
    assert (garbled.node, garbled.kind) == ("answer.think 1", "unparsed")


# ── retrieval ────────────────────────────────────────────────────────────────────────────────────

DOCUMENTS = [
    {"id": "norway", "title": "Oslo", "text": "It is the capital of Norway."},
    {"id": "italy", "title": "Italy", "text": "Rome is its capital. Norway is far away."},
    {"id": "sweden", "title": "Sweden", "text": "Its capital is Stockholm."},
]


@dataclass
class Alike:
    """An embedder to which all texts are the same, for an index that is searched by words alone."""

    name: str = "alike"
    sha256: str = "a" * 64
    dimension: int = 8
    longest: int = 100

    def embed(self, texts: Sequence[str], report: Callable[[int, int], None] = lambda done, total: None) -> Any:
        return np.full((len(texts), self.dimension), self.dimension**-0.5, dtype=np.float32)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]

    def close(self) -> None: ...


def indexed(tmp_path: Path, embedder: Embedder) -> Services:
    """A search of the documents."""
    pytest.importorskip("faiss")
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS), "utf-8")
    recipe, folder = Recipe(docs=("../docs.jsonl",)), tmp_path / "indexes"
    write_recipe(recipe, folder / "kb.toml")
    build("kb", recipe, read_documents(recipe.docs, folder), folder, embedder)
    return {"retrieval": RetrievalService(tmp_path)}


def test_a_search_without_the_answer_is_a_miss_and_one_with_it_is_not(tmp_path: Path) -> None:
    services = indexed(tmp_path, Alike())
    look = Retrieve("kb", k=1, mode="lexical")
    hop = Predict("What now?", output="thought")(QUESTION, look(QUESTION, name="first"))
    program = Program(Predict("Answer it.")(QUESTION, look(hop, name="second")))
    wrong = {"Answer it.": "Bergen"}
    assert executed(program, {"What now?": "Italy Rome", "Answer it.": "Oslo"}, OSLO, services=services)[0].score == 1.0
    assert diagnosed(program, {"What now?": "Italy Rome", **wrong}, services) == Diagnosis(
        "answer", "wrong answer", "other"
    ), "the first search found it, in a title"
    moved = replace(OSLO, inputs={"question": "Sweden"})
    for thought, found in (
        ("Italy Rome", Diagnosis("second", "retrieval miss")),
        ("Norway capital", Diagnosis("answer", "wrong answer", "other")),
    ):
        (trace,) = executed(program, {"What now?": thought, **wrong}, moved, services=services)
        assert diagnose(program, trace) == found


def test_closed_labels_are_no_miss(tmp_path: Path) -> None:
    services = indexed(tmp_path, Alike())
    sweden = replace(OSLO, inputs={"question": "Sweden"})
    chosen = Program(CITIES(QUESTION, Retrieve("kb", k=1, mode="lexical")(QUESTION, name="look")))
    (trace,) = executed(chosen, {"Which city?": [-2.0, -1.0, -3.0]}, sweden, services=services)
    assert diagnose(chosen, trace) == Diagnosis("answer", "wrong label", "Oslo → Bergen")


@pytest.mark.model
def test_an_agent_that_searched_in_vain_missed(tmp_path: Path) -> None:
    services = indexed(tmp_path, open_embedder(DEFAULT_EMBEDDER, tmp_path))
    agent = alone(Agent(index="kb", k=1))
    for queries, found in (
        (["Sweden", "Rome"], Diagnosis("answer.search 2", "retrieval miss")),
        (["Sweden", "Oslo"], Diagnosis("answer", "wrong answer", "other")),
        ([], Diagnosis("answer", "wrong answer", "other")),
    ):
        turns = [*(turn("Look.", "search", query=query) for query in queries), turn("So.", "finish", answer="Rome")]
        answers = {"": lambda request, turns=turns: turns[str(request.prompt).count("Observation:")]}
        assert diagnosed(agent, answers, services) == found


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────

KINDS = ("Oslo", "Bergen", "Rome", "", "It is Oslo", "Paris")
COUNTRIES = Program(Predict("Answer it.", output={"reason": "int", "answer": "text"})(QUESTION))


def execution(number: int, text: str, error: str | None = None, score: float = 0.0, program: str = "p") -> Trace:
    return Trace(program, replace(OSLO, id=f"e{number}"), (), Prediction(text, error=error), score)


FAILED = st.builds(
    execution,
    st.integers(0, 5),
    st.sampled_from(KINDS),
    st.none() | st.sampled_from(["answer: unparsed: reason: no", "answer: out of memory 5", "x: 1", ""]),
    st.sampled_from([0.0, 0.5, 1.0, float("nan")]),
)


@given(st.lists(FAILED, max_size=25), st.randoms(use_true_random=False))
def test_every_failure_is_in_exactly_one_cluster_whatever_the_order(traces: list[Trace], random: Any) -> None:
    wrong = [trace for trace in traces if trace.prediction.error is not None or trace.score < 1]
    clusters = failures(COUNTRIES, traces)
    spread = [id(trace) for cluster in clusters for trace in cluster.traces]
    assert sorted(spread) == sorted(map(id, wrong))
    assert sum(cluster.count for cluster in clusters) == len(wrong)
    counts = [cluster.count for cluster in clusters]
    assert counts == sorted(counts, reverse=True)
    for cluster in clusters:
        places = [next(i for i, other in enumerate(traces) if other is trace) for trace in cluster.traces]
        assert places == sorted(places), "in the order in which they were given"
        assert set(cluster.examples) == {trace.example.id for trace in cluster.traces}
        assert "\n" not in cluster.description
    shuffled = list(traces)
    random.shuffle(shuffled)
    again = failures(COUNTRIES, shuffled)
    assert [(c.node, c.kind, c.label, c.count) for c in again] == [(c.node, c.kind, c.label, c.count) for c in clusters]
    keys = [(cluster.node, cluster.kind, cluster.label) for cluster in clusters]
    assert len(set(keys)) == len(keys)
    lines = summary(clusters, 2).splitlines()
    assert len(lines) == min(len(clusters), 3)
    assert sum(counts) == 0 or len(clusters) <= 2 or f"and {sum(counts[2:])} more" in lines[2]


def test_equals_come_in_alphabetical_order_and_clusters_of_programs_are_put_together() -> None:
    pairs = [
        (Diagnosis("b", "wrong answer", "other"), execution(1, "x")),
        (Diagnosis("a", "wrong answer", "other"), execution(2, "x")),
        (Diagnosis("c", "retrieval miss"), execution(3, "x")),
        (Diagnosis("c", "retrieval miss"), execution(4, "x", program="another")),
        (Diagnosis("a", "wrong answer", "empty"), execution(5, "")),
    ]
    found = [(cluster.node, cluster.label, cluster.examples) for cluster in clustered(pairs)]
    assert found == [("c", "", ("e3", "e4")), ("a", "empty", ("e5",)), ("a", "other", ("e2",)), ("b", "other", ("e1",))]


def test_right_and_unscored_executions_are_no_failures() -> None:
    program = alone(Predict("Answer it."))
    (right,) = executed(program, {"Answer it.": "Oslo"}, OSLO)
    assert not has_failed(right)
    assert not has_failed(replace(right, score=float("nan")))
    assert failures(program, [right]) == []
    assert summary([]) == ""


@pytest.mark.parametrize(
    ("kind", "label", "text", "says"),
    [
        ("wrong label", "Oslo → Rome", "Rome", 'it chose "Rome" where "Oslo" is right'),
        ("unsure", "Oslo", "Oslo", 'it chose "Oslo", which is right, without being sure of it'),
        ("wrong answer", "empty", "", 'it wrote nothing, such as where "Oslo" is right'),
        ("wrong answer", "too long", "In Oslo", 'it wrote more than the answer, such as "In Oslo" where "Oslo"'),
        ("wrong answer", "other", "Rome\n" * 90, f'it gave a wrong answer, such as "{("Rome " * 16)[:79]}…" where'),
        ("retrieval miss", "", "Rome", 'no passage that it found holds the right answer, such as "Oslo"'),
        ("truncated", "", "Rome", "its reply was cut off before its end"),
        ("unparsed", "no field", "", "its reply could not be read: no field"),
        ("tool error", "KeyError", "", "it failed: KeyError"),
    ],
)  # fmt: skip
def test_a_cluster_describes_itself_in_one_line(kind: Any, label: str, text: str, says: str) -> None:
    once = Cluster("look", kind, label, (execution(1, text),))
    assert once.description.startswith(f"look (once): {says}")
    assert replace(once, traces=once.traces * 3).description.startswith(f"look (3 times): {says}")
    assert "\n" not in once.description
