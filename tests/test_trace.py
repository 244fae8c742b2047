"""Traces: what is stored comes back equal, older stores are brought up to date, and one execution is drawn whole."""

import contextlib
import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_cli import Cli, complaint
from support_layers import Script

from engine.cli.execution import Branch, Layout
from engine.evaluation import evaluate
from engine.feedback.backward import backward
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Sequential
from engine.records import Call, Completion, Example, Passage, Prediction, Remark, RemarkKind, Step, Trace
from engine.store.keys import canonical
from engine.store.rows import RunRow
from engine.store.store import Store
from engine.store.traces import TraceRow, trace_id
from engine.tasks.metrics import METRICS

# ── there and back ───────────────────────────────────────────────────────────────────────────────

TEXT = st.text(max_size=4)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
PASSAGE = st.builds(Passage, TEXT, TEXT, TEXT, TEXT, NUMBER)


def step_with(inner: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        node=TEXT,
        inputs=TEXTS,
        outputs=TEXTS,
        calls=st.lists(TEXT, max_size=3).map(tuple),
        loglikelihoods=st.none() | st.lists(NUMBER, max_size=3).map(tuple),
        probabilities=st.none() | st.dictionaries(TEXT, NUMBER, max_size=3),
        passages=st.lists(PASSAGE, max_size=2).map(tuple),
        steps=inner,
        value=st.none() | NUMBER,
        error=st.none() | TEXT,
    )


STEP = st.recursive(step_with(st.just(())), lambda step: step_with(st.lists(step, max_size=3).map(tuple)), max_leaves=4)
TRACE = st.builds(
    Trace,
    program=TEXT,
    example=st.builds(Example, TEXT, TEXTS, st.lists(TEXT, max_size=3).map(tuple), TEXT),
    steps=st.lists(STEP, max_size=3).map(tuple),
    prediction=st.builds(
        Prediction, TEXT, TEXTS, st.none() | st.dictionaries(TEXT, NUMBER, max_size=3), st.none() | TEXT
    ),
    score=st.just(math.nan) | st.floats(0, 1),
)


def orders(value: Any) -> Any:
    """The keys of every mapping in a record, in their order, which equality does not look at."""
    if isinstance(value, dict):
        return [(key, orders(inner)) for key, inner in value.items()]
    if isinstance(value, tuple):
        return [orders(inner) for inner in value]
    names = getattr(value, "__dataclass_fields__", ())
    return [orders(getattr(value, name)) for name in names]


@settings(max_examples=30)
@given(st.lists(TRACE, max_size=2), TEXT)
def test_a_trace_comes_back_equal_with_its_mappings_in_their_order(traces: list[Trace], name: str) -> None:
    with Store(":memory:") as store:
        store.commit([], traces, run=name)
        rows = store.traces()
        assert [store.trace(row.id) for row in rows] == rows
    last = {(trace.program, trace.example.id, canonical(dict(trace.example.inputs))): trace for trace in traces}
    assert len(rows) == len(last)
    for row in rows:
        key = (row.trace.program, row.trace.example.id, canonical(dict(row.trace.example.inputs)))
        assert row.run == name
        assert row.id == trace_id(name, *key)
        assert replace(row.trace, score=0) == replace(last[key], score=0)
        assert row.trace.score == pytest.approx(last[key].score, nan_ok=True, abs=0)
        assert orders(row.trace) == orders(last[key])


def simple(example: str = "e1", program: str = "f1", error: str | None = None, score: float = 1.0) -> Trace:
    prediction = Prediction("", error=error) if error else Prediction("a", {"answer.answer": "a"})
    return Trace(program, Example(example, {"question": "q"}, ("a",), "rows.jsonl:1"), (), prediction, score)


def test_traces_are_listed_last_written_first_and_filtered(store: Store) -> None:
    store.commit([], [simple("e1"), simple("e2", error="too long", score=0.0)], run="eval-1")
    store.commit([], [simple("e3", program="g7")], run="other")
    assert [row.trace.example.id for row in store.traces()] == ["e3", "e2", "e1"]
    assert [row.trace.example.id for row in store.traces(run="eval")] == ["e2", "e1"]
    assert [row.trace.example.id for row in store.traces(run="eval", limit=1)] == ["e2"]
    assert [row.trace.example.id for row in store.traces(program="g")] == ["e3"]
    assert [row.trace.example.id for row in store.traces(failed=True)] == ["e2"]
    assert store.traces(run="val") == store.traces(run="%") == []


def test_an_execution_repeated_keeps_its_name_and_becomes_the_newest(store: Store) -> None:
    store.commit([], [simple("e1"), simple("e2")], run="r")
    first = store.traces()[-1]
    store.commit([], [replace(simple("e1"), score=0.5)], run="r")
    rows = store.traces()
    assert [row.trace.example.id for row in rows] == ["e1", "e2"]
    assert rows[0].id == first.id
    assert rows[0].created >= first.created
    assert rows[0].trace.score == 0.5


def test_a_trace_is_found_by_its_whole_name_and_names_by_their_beginning(store: Store) -> None:
    store.commit([], [simple(f"e{number}") for number in range(40)])
    names = sorted(row.id for row in store.traces())
    assert store.trace_ids("") == names
    for beginning in {name[:2] for name in names} | {names[7]}:
        assert store.trace_ids(beginning) == [name for name in names if name.startswith(beginning)]
    assert store.trace_ids("no") == store.trace_ids("%") == []
    assert store.trace(names[0][:5]) is None


REMARK = st.builds(
    Remark,
    program=st.sampled_from(["p", "q"]),
    example=st.builds(Example, st.sampled_from(["e1", "e2"]), st.just({"question": "q", "a": ""}), st.just(("x",))),
    node=TEXT,
    kind=st.sampled_from(get_args(RemarkKind)),
    text=TEXT,
    value=st.none() | NUMBER,
)


@settings(max_examples=40)
@given(st.lists(REMARK, max_size=8), st.integers(1, 3))
def test_remarks_come_back_as_they_were_made_however_often_they_are_made(remarks: list[Remark], times: int) -> None:
    traces = [
        Trace(p, Example(e, {"a": "", "question": "q"}, ("x",)), (), Prediction("y"), 0.0)
        for p in "pq"
        for e in ("e1", "e2")
    ]
    with Store(":memory:") as store:
        for _ in range(times):
            store.commit([], traces, "r", remarks)
        for row in store.traces():
            mine = [
                one for one in remarks if (one.program, one.example.id) == (row.trace.program, row.trace.example.id)
            ]
            last = {(one.node, one.kind, one.text): one for one in mine}
            assert store.remarks(row.id) == list(last.values())
        store.commit([], traces, "another run")
        assert [store.remarks(row.id) for row in store.traces(run="another")] == [[], [], [], []]


def test_a_remark_waits_for_its_trace_and_keeps_finite_numbers(store: Store) -> None:
    remark = Remark("f1", simple().example, "answer", "judge", "yes", math.inf)
    store.commit([], [], "r", [remark, replace(remark, text="no", value=0.25)])
    name = trace_id("r", "f1", "e1", canonical({"question": "q"}))
    assert store.remarks(name) == []
    store.commit([], [simple()], "r")
    assert [(one.text, one.value) for one in store.remarks(name)] == [("yes", None), ("no", 0.25)]
    assert store.remarks("") == []


def test_traces_of_a_task_are_those_of_its_runs_evaluations_and_answers(store: Store) -> None:
    for name, task in (("trec-1", "trec"), ("trec-x-1", "trec-x")):
        store.put_run(RunRow(name, "optimize", task, "p", "f", 0, {}))
    for number, run in enumerate(
        ("trec-1", "trec-x-1", "eval-trec-f1", "eval-trec-x-f1", "eval-trec-f2", "run-trec", "run-trec-x", "run", "")
    ):
        store.commit([], [simple(f"e{number}", score=number / 8)], run=run)
    assert [row.run for row in store.traces(task="trec")] == ["run-trec", "eval-trec-f1", "trec-1"]
    assert [row.run for row in store.traces(task="trec-x")] == ["run-trec-x", "eval-trec-x-f1", "trec-x-1"]
    assert [row.run for row in store.traces(task="trec", run="eval", below=0.5)] == ["eval-trec-f1"]
    assert len(store.traces()) == 9
    assert [run.id for run in store.runs("trec")] == ["trec-1"]
    assert store.runs("tre") == store.traces(task="tre") == []


def test_traces_below_a_score_are_those_that_scored_less_and_those_without_an_answer(store: Store) -> None:
    store.commit([], [simple("e1"), simple("e2", score=0.5), simple("e3", error="no", score=math.nan)])
    store.commit([], [simple("e4", score=math.nan)])
    assert [row.trace.example.id for row in store.traces(below=1.0)] == ["e3", "e2"]
    assert [row.trace.example.id for row in store.traces(below=0.5)] == ["e3"]


def test_a_failed_call_can_be_looked_at_but_is_never_reused(store: Store) -> None:
    failed = Call("k", "m", "generate", "{}", "p", Completion(key="k", error="out of memory", prompt_tokens=3))
    store.commit([failed])
    assert store.call("k") == failed
    assert store.completion("k") is None


# ── a store of version 1 ─────────────────────────────────────────────────────────────────────────

CALL_TIME, RUN_TIME = "2025-01-02T03:04:05.000Z", "2025-02-02T03:04:05.000Z"


def version_1(path: Path) -> None:
    """A store as it was written before traces had names: two traces of a run, one of an evaluation, one of nothing."""
    script = (resources.files("engine.store") / "migrations" / "0001_first.sql").read_text("utf-8")
    step = {"node": "answer", "inputs": {"q": "x"}, "outputs": {"answer": "a"}, "calls": ["k1", "k2"]}
    steps = json.dumps([step | {"loglikelihoods": [-1.5, -0.5], "probabilities": {"a": 0.7, "b": 0.3}, "error": None}])
    prediction = json.dumps({"text": "a", "outputs": {}, "probabilities": None, "error": None})
    failed = json.dumps({"text": "", "outputs": {}, "probabilities": None, "error": "no"})
    connection = apsw.Connection(str(path))
    connection.execute(f"{script}; PRAGMA user_version = 1").fetchall()
    connection.execute(
        "INSERT INTO runs (id, kind, task, task_path, task_fingerprint, seed, settings, status, started) "
        "VALUES ('r1', 'optimize', 't', 'p', 'f', 0, '{}', 'done', ?)",
        (RUN_TIME,),
    )
    connection.execute(
        "INSERT INTO calls (key, model, kind, request, prompt, answer, digest, prompt_tokens, generated_tokens, "
        "computed_tokens, seconds, created) VALUES ('k2', 'm', 'score', '{}', '', '{}', '', 1, 0, 1, 0, ?)",
        (CALL_TIME,),
    )
    for run_name, example, body, error, score in (
        ("eval-1", "e1", prediction, None, 1.0),
        ("r1", "e1", prediction, None, None),
        ("r1", "e2", failed, "no", 0.0),
        ("", "e1", prediction, None, 1.0),
    ):
        connection.execute(
            "INSERT INTO traces VALUES (?, 'p1', ?, '{\"q\":\"x\"}', '[\"a\"]', ?, ?, ?, ?)",
            (run_name, example, steps if run_name else "[]", body, error, score),
        )
    connection.close()


def test_a_store_of_version_1_is_brought_up_to_date_with_every_trace_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    version_1(path)
    with Store(path) as store:
        rows = store.traces()
        assert [(row.run, row.trace.example.id, row.created) for row in rows] == [
            ("r1", "e2", RUN_TIME),
            ("r1", "e1", RUN_TIME),
            ("eval-1", "e1", CALL_TIME),
            ("", "e1", ""),
        ]
        assert [row.id for row in rows] == [trace_id(row.run, "p1", row.trace.example.id, '{"q":"x"}') for row in rows]
        step = Step("answer", {"q": "x"}, {"answer": "a"}, ("k1", "k2"), (-1.5, -0.5), {"a": 0.7, "b": 0.3})
        whole = Trace("p1", Example("e1", {"q": "x"}, ("a",)), (step,), Prediction("a"), 1.0)
        assert rows[2].trace == whole
        assert math.isnan(rows[1].trace.score)
        assert [row.trace.prediction.error for row in rows] == ["no", None, None, None]
        store.commit([], [whole], run="eval-1")
        again = store.traces()
        assert len(again) == 4, "the same execution is the same trace as before"
        assert again[0].id == rows[2].id
    with Store(path) as store:
        assert store.traces() == again


def test_a_store_of_version_2_takes_remarks_on_the_traces_it_has(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("trace_id", lambda *values: trace_id(*values), 4)
    for number, name in enumerate(("0001_first.sql", "0002_traces.sql"), start=1):
        script = (resources.files("engine.store") / "migrations" / name).read_text("utf-8")
        connection.execute(f"{script}; PRAGMA user_version = {number}").fetchall()
    name = trace_id("r1", "f1", "e1", canonical({"question": "q"}))
    connection.execute(
        "INSERT INTO traces (id, run, program, example, origin, inputs, accepted, steps, prediction, score) "
        "VALUES (?, 'r1', 'f1', 'e1', 'rows.jsonl:1', '{\"question\":\"q\"}', '[\"a\"]', '[]', '{\"text\":\"a\"}', 0)",
        (name,),
    )
    connection.close()
    remark = Remark("f1", simple().example, "answer.instruction", "gradient", "Be brief.")
    with Store(path) as store:
        (row,) = store.traces()
        assert store.remarks(row.id) == []
        store.commit([], [], "r1", [remark])
    with Store(path) as store:
        assert store.traces() == [row], "the trace is as it was"
        assert store.remarks(row.id) == [remark]


# ── drawn ────────────────────────────────────────────────────────────────────────────────────────


def found(branch: Branch, *labels: str) -> Branch:
    """The one branch that these labels lead to."""
    for label in labels:
        (branch,) = (inner for inner in branch.branches if inner.label == label)
    return branch


def labels(branch: Branch) -> list[str]:
    return [inner.label for inner in branch.branches]


def drawn(*steps: Step, calls: tuple[Call, ...] = (), **settings: bool) -> Branch:
    trace = Trace("f", Example("e1", {"question": "q"}, ("a", "b")), steps, Prediction("a"), 0.5)
    return Layout({call.key: call for call in calls}, **settings).tree(TraceRow("0123", "", "r", trace))


def service_call(kind: str, request: dict[str, Any], **answer: Any) -> Call:
    return Call("k", "service", kind, canonical({"kind": kind, **request}), "", Completion(key="k", **answer))


def test_a_node_is_drawn_in_the_order_in_which_things_happened() -> None:
    inner = Step("of 1", {"question": "q", "draft": "d"}, {"answer": "x"}, value=-1.25)
    passage = Passage("d1#0", "d1", "Oslo", "Oslo is  a\ncity.", 0.03251)
    step = Step("look", {"question": "q"}, {"answer": "a"}, ("k",), None, {"a": 0.25, "b": 0.75}, (passage,), (inner,))
    tree = drawn(step)
    before = ["written", "run", "program", "example", "input question", "accepted"]
    assert labels(tree) == [*before, "look", "answer", "score"]
    node = found(tree, "look")
    assert labels(node) == ["reads question", "of 1", "call", "probabilities", "passage 1", "gives answer"]
    assert found(node, "of 1").text == "value -1.25"
    assert labels(found(node, "of 1")) == ["reads draft", "reads", "gives answer"]
    assert found(node, "of 1", "reads").text == "question as above"
    assert found(node, "call").text == "k is not in this store, or damaged"
    assert found(node, "probabilities").text == "b 75.0% · a 25.0%"
    assert found(node, "passage 1").text == "0.03251 · d1#0 Oslo: Oslo is a ⏎ city."
    assert found(tree, "accepted").text == "a · b"
    assert found(tree, "score").text == "0.5"


def test_texts_are_cut_unless_all_is_wanted() -> None:
    long = "word\n" * 100
    step = Step("n", {"question": long}, {"answer": long}, loglikelihoods=tuple(range(9)))
    short, full = drawn(step), drawn(step, full=True)
    cut = found(short, "n", "reads question").text
    assert cut.startswith("word ⏎ word")
    assert cut.endswith("…")
    assert len(cut) <= 161
    assert found(short, "n", "log-likelihoods").text == "0 · 1 · 2 · 3 · 5 more"
    assert found(full, "n", "reads question").text == long
    assert found(full, "n", "log-likelihoods").text.endswith("7 · 8")


@given(st.text(max_size=900) | st.text("ab \n", max_size=900))
def test_a_cut_text_is_the_beginning_of_the_whole(text: str) -> None:
    cut = found(drawn(Step("n", {"question": text}, {})), "n", "reads question").text
    if cut == "(empty)":
        assert text.split() in ([], ["(empty)"])
        return
    shown, flat = cut.removesuffix("…").replace(" ⏎ ", " ").split(), text.replace("⏎", " ").split()
    assert "".join(flat).startswith("".join(shown).replace("⏎", ""))
    assert len(cut) <= 161
    assert "\n" not in cut
    if len(text) <= 60:
        assert "".join(shown).replace("⏎", "") == "".join(flat), "a short text is not cut"


def test_code_is_drawn_in_its_lines_and_its_result_by_name() -> None:
    source = "".join(f"x{number} = {number}\n" for number in range(15))
    request = {"source": source, "inputs": '{"radius": 2}', "seconds": 1.0}
    call = service_call("python", request, text='{"value": 12.5, "stdout": "one\\ntwo\\n"}', seconds=0.25)
    node = found(drawn(Step("n", {}, {}, ("k",)), calls=(call,)), "n", "python")
    assert node.text == "0.25 s by service"
    assert found(node, "inputs", "radius").text == "2"
    assert found(node, "source").text.split("\n") == [*(f"x{n} = {n}" for n in range(12)), "… 3 more lines"]
    assert found(node, "result", "value").text == "12.5"
    assert found(node, "result", "stdout").text == "one\ntwo"


def test_tools_searches_and_statements_are_drawn_with_what_was_asked() -> None:
    step = Step("n", {}, {}, ("k",))
    tool = service_call("tool", {"tool": "t.py:f", "arguments": '{"city": "Oslo"}'}, error="f: KeyError: 'Oslo'")
    node = found(drawn(step, calls=(tool,)), "n", "tool")
    assert found(node, "arguments", "city").text == "Oslo"
    assert found(node, "failed").text == "f: KeyError: 'Oslo'"
    search = service_call("search", {"query": "oslo", "k": 2, "threshold": None}, passages=())
    node = found(drawn(step, calls=(search,)), "n", "search")
    assert labels(node) == ["k", "query", "found"]
    assert found(node, "found").text == "0 passages"
    sql = service_call("sql", {"statement": "SELECT 1\nFROM t"}, text='{"rows": [[1]]}')
    node = found(drawn(step, calls=(sql,)), "n", "sql")
    assert found(node, "statement").text == "SELECT 1\nFROM t"
    assert found(node, "result", "rows").text == "[[1]]"
    plain = service_call("tool", {}, text="just words")
    assert found(drawn(step, calls=(plain,)), "n", "tool", "result").text == "just words"


def test_a_model_s_calls_are_drawn_with_tokens_answers_and_prompts_where_wanted() -> None:
    request = canonical({"kind": "score", "prompt": "p", "continuations": [" a", " b"], "end": None})
    done = Completion(loglikelihoods=(-2.0, -0.5), prompt_tokens=1234, seconds=0.5)
    call = Call("k", "m", "score", request, "the\nprompt", done)
    step = Step("n", {}, {}, ("k",))
    node = found(drawn(step, calls=(call,)), "n", "score")
    assert node.text == "1,234 tokens read, 0 written, 0.50 s by m"
    assert [(inner.label, inner.text) for inner in node.branches] == [("scored", "b -0.5 · a -2")]
    node = found(drawn(step, calls=(call,), prompts=True, full=True), "n", "score")
    assert labels(node) == ["prompt", "continuations", "end", "scored"]
    assert found(node, "prompt").text == "the\nprompt"
    won = replace(call, completion=replace(done, loglikelihoods=None, winner=1))
    assert found(drawn(step, calls=(won,)), "n", "score", "chose").text == "b"
    wrote = replace(call, kind="generate", completion=Completion(text="Os\nlo", finish="length"))
    assert found(drawn(step, calls=(wrote,)), "n", "generate", "wrote").text == "Os\nlo (at its cap)"


def test_what_feedback_said_stands_beside_what_it_is_about() -> None:
    plan = Step("steps.plan", {"question": "q"}, {"plan": "p"})
    step = Step("answer", {"question": "q"}, {"answer": "a"}, steps=(plan, Step("of 1", {}, {}), Step("of 10", {}, {})))
    said: list[tuple[str, RemarkKind, str, float | None]] = [
        ("answer.instruction", "gradient", "Be brief. " * 40, None),
        ("answer.steps.plan.instruction", "gradient", "Plan\nbetter.", None),
        ("answer.steps.plan.plan", "gradient", "It should be short.", None),
        ("answer.of 1", "judge", "no", -1.25),
        ("answer.of.demos", "attribution", "the first", 0.5),
        ("answer.answer", "loss", "Oslo is right.", 1.0),
        ("answer", "failure", "wrong answer: other", None),
        ("later.instruction", "gradient", "Never reached.", None),
        ("answer", "attribution", "", -0.125),
    ]
    trace = Trace("f", Example("e1", {"question": "q"}, ("a",)), (step,), Prediction("a"), 0.5)
    remarks = [Remark("f", trace.example, *one) for one in said]
    row = TraceRow("0123", "", "r", trace)
    short, full = Layout({}, remarks=remarks).tree(row), Layout({}, full=True, remarks=remarks).tree(row)
    (node,) = (inner for inner in short.branches if inner.label == "answer" and inner.heavy)
    assert [(inner.label, inner.text) for inner in found(node, "feedback").branches[:4]] == [
        ("failure", "wrong answer: other"),
        ("loss on answer", "1 · Oslo is right."),
        ("attribution on of.demos", "+0.5 · the first"),
        ("attribution", "-0.125"),
    ]
    assert labels(node)[-1] == "feedback"
    last = found(node, "feedback").branches[-1]
    assert (last.label, last.text) == ("gradient on instruction", f"{('Be brief. ' * 40)[:320].rstrip()}…")
    (whole,) = (inner for inner in full.branches if inner.label == "answer" and inner.heavy)
    assert found(whole, "feedback").branches[-1].text == "Be brief. " * 40
    inner = found(node, "steps.plan", "feedback")
    assert [(one.label, one.text) for one in inner.branches] == [
        ("gradient on instruction", "Plan ⏎ better."),
        ("gradient on plan", "It should be short."),
    ]
    assert found(node, "of 1", "feedback", "judge").text == "-1.25 · no"
    assert labels(found(node, "of 10")) == []
    assert found(short, "feedback", "gradient on later.instruction").text == "Never reached."
    assert labels(short)[-2:] == ["score", "feedback"]


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """A store with two executions of a program of a choice and two steps, of which the second fails."""
    path = tmp_path / ".localgrad" / "store.db"
    question = Input("question")
    kind = Predict("Say what is asked for.", "kind", choices=("person", "place"))(question)
    steps = {"plan": Predict("Plan it.", output="plan"), "solve": Predict("Solve it.", output="answer")}
    program = Program(Sequential(steps)(question, kind, name="answer"))
    answers = {"Plan it.": "Recall the \x1bcapital.", "Solve it.": "[bold]Oslo[/bold]", "Say what": [-2.0, -0.5]}
    examples = [
        Example("one", {"question": "What is the capital of Norway?"}, ("Oslo",), "rows.jsonl:1"),
        Example("two", {"question": "word " * 9000}, ("Oslo",), "rows.jsonl:2"),
    ]
    with Runtime({"task": ScriptedBackend(Script(answers))}, Store(path)) as runtime:
        runtime.run(forward(program, examples, METRICS["exact_match"]), run="eval-capitals")
    return path


def names(cli: Cli, *arguments: str | Path) -> dict[str, str]:
    """Names of traces by their example."""
    return {row["example"]: row["id"] for row in cli("trace", "list", "--json", *arguments).json["traces"]}


def test_executions_are_listed_one_a_line(cli: Cli, traced: Path) -> None:
    lines = cli("trace", "list", "--store", traced).out.splitlines()
    assert [word.split()[0] for word in lines[:1]] == ["id"]
    assert len(lines) == 3
    by_example = names(cli, "--store", traced)
    one = next(line for line in lines if " one " in line)
    assert one.split()[0] == by_example["one"][:10]
    assert "eval-capitals" in one
    assert "[bold]Oslo[/bold]" in one
    two = next(line for line in lines if " two " in line)
    assert "failed: kind: the prompt needs" in two
    assert set(names(cli, "--store", traced, "--failed")) == {"two"}
    assert set(names(cli, "--store", traced, "--run", "eval-c")) == {"one", "two"}
    assert len(names(cli, "--store", traced, "--limit", "1")) == 1
    assert names(cli, "--store", traced, "--program", "none") == {}
    assert cli("trace", "list", "--store", traced, "--run", "none").out.endswith("none of these\n")


def test_an_execution_is_shown_with_its_steps_calls_and_answer(cli: Cli, traced: Path) -> None:
    by_example = names(cli, "--store", traced)
    shown = cli("trace", "show", by_example["one"][:8], "--store", traced)
    assert shown.code == 0
    lines = [line.lstrip("│├└─ ") for line in shown.out.splitlines()]
    order = ["kind", "probabilities: place 81.8% · person 18.2%", "answer", "steps.plan", "steps.solve"]
    assert [line for line in lines if line in order] == order
    assert "wrote: Recall the \\x1bcapital." in lines
    assert "reads plan: Recall the \\x1bcapital." in lines
    assert "answer: [bold]Oslo[/bold]" in lines
    assert lines[-1] == "score: 0"
    assert "<system>" not in shown.out
    assert "<system>" in cli("trace", "show", by_example["one"], "--prompts", "--store", traced).out
    failed = cli("trace", "show", by_example["two"], "--store", traced).out
    assert failed.count("failed: ") == 3, "the call, the node and the execution"


def test_an_execution_as_data_is_complete(cli: Cli, traced: Path) -> None:
    shown = cli("trace", "show", names(cli, "--store", traced)["one"], "--store", traced, "--json").json
    assert shown["example"]["inputs"] == {"question": "What is the capital of Norway?"}
    assert [step["node"] for step in shown["steps"]] == ["kind", "answer"]
    keys = [key for step in (shown["steps"][0], *shown["steps"][1]["steps"]) for key in step["calls"]]
    assert [call["key"] for call in shown["calls"]] == keys
    assert shown["calls"][1]["completion"]["text"] == "Recall the \x1bcapital."
    assert "Plan it." in shown["calls"][1]["prompt"]
    assert shown["score"] == 0.0


def test_a_name_that_is_unknown_or_shared_is_refused_in_one_line(cli: Cli, traced: Path) -> None:
    assert "no trace 'ffzz'" in complaint(cli("trace", "show", "ffzz", "--store", traced), 2)
    assert "2 traces begin with ''" in complaint(cli("trace", "show", "", "--store", traced), 2)


def test_the_nearest_store_is_looked_in_and_an_empty_one_says_so(cli: Cli, traced: Path, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    with contextlib.chdir(tmp_path / "deeper"):
        assert set(names(cli)) == {"one", "two"}
        assert "no store here yet" in complaint(cli("trace", "list", tmp_path.parent / "absent.yaml"), 2)
    with Store(tmp_path / "empty.db"):
        pass
    assert "no executions yet" in cli("trace", "list", "--store", tmp_path / "empty.db").out


# ── what went wrong ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A store with a task's evaluation: a choice that is right once, wrong three times and once too long to read."""
    path = tmp_path / ".localgrad" / "store.db"
    program = Program(Predict("Say what is asked for.", choices=("person", "place"))(Input("question"), name="kind"))
    examples = [
        *(Example(f"row-{number}", {"question": f"Where is {number}?"}, ("person",)) for number in range(3)),
        Example("row-3", {"question": "Where?"}, ("place",)),
        Example("a-row-with-a-long-name", {"question": "word " * 9000}, ("place",)),
    ]
    with Runtime({"task": ScriptedBackend(Script({"Say what": [-2.0, -0.5], "Say it.": "a"}))}, Store(path)) as runtime:
        evaluate(program, examples, METRICS["exact_match"], runtime, run=f"eval-capitals-{program.fingerprint}")
        runtime.run(backward(program, [row.trace for row in runtime.store.traces()]), run=runtime.store.traces()[0].run)
        runtime.run(forward(Program(Predict("Say it.")(Input("question"))), examples[:1], METRICS["exact_match"]))
    (tmp_path / "task.yaml").write_text(TASK.format("capitals"))
    (tmp_path / "other.yaml").write_text(TASK.format("other"))
    return path


TASK = """
version: 1
name: {}
model: scripted
data: {{train: {{path: rows.jsonl}}, inputs: {{question: question}}, target: label}}
program: {{kind: {{layer: predict, inputs: [question], instruction: "Say what is asked for."}}}}
"""


def test_failures_are_listed_where_they_went_wrong_alike(cli: Cli, failing: Path, tmp_path: Path) -> None:
    listed = cli("trace", "list", "--failures", "--store", failing, "--json").json
    assert (listed["failed"], listed["unknown"]) == (5, 1)
    wrong, long = listed["failures"]
    assert (wrong["node"], wrong["kind"], wrong["label"], wrong["count"]) == (
        "kind",
        "wrong label",
        "person → place",
        3,
    )
    assert wrong["description"] == 'kind (3 times): it chose "place" where "person" is right'
    assert (long["kind"], long["examples"]) == ("failed call", ["a-row-with-a-long-name"])
    by_example = names(cli, "--store", failing, "--run", "eval")
    assert wrong["traces"] == [by_example[example] for example in wrong["examples"]]
    done = cli("trace", "list", "--failures", "--store", failing)
    head, first, second = done.out.splitlines()
    assert head.split() == ["count", "node", "kind", "look", "at", "examples"]
    assert first.split()[:6] == ["3", "kind", "wrong", "label:", "person", "→"]
    assert f"{wrong['traces'][0][:10]}  row-2 row-1 row-0" in first
    assert second.rstrip().endswith("a-row-with-a-…")
    assert "1 failed execution left out: the program is not in this store" in complaint(done, 0)
    short = cli("trace", "list", tmp_path / "task.yaml", "--failures", "--limit", "1")
    assert short.out.splitlines()[-1] == "1 more kind of failure; --limit shows them"
    assert short.err == "", "of this task every program is known"
    long_only = cli("trace", "list", "--failures", "--failed", "--store", failing, "--json").json
    assert [cluster["kind"] for cluster in long_only["failures"]] == ["failed call"]


def test_without_failures_or_executions_there_is_one_clear_line(cli: Cli, failing: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    for arguments, line in (
        (["--store", tmp_path / "empty.db"], "no executions yet; localgrad eval TASK leaves some"),
        (["--store", failing, "--run", "nothing"], "none of these"),
        ([tmp_path / "other.yaml"], "no executions yet of task other"),
    ):
        done = cli("trace", "list", "--failures", *arguments)
        assert (done.code, done.out.count("\n")) == (0, 1)
        assert line in done.out
    empty = cli("trace", "list", "--failures", "--store", tmp_path / "empty.db", "--json").json
    assert empty == {"failed": 0, "unknown": 0, "failures": []}
    with Store(tmp_path / "right.db") as store:
        store.commit([], [simple()])
    done = cli("trace", "list", "--failures", "--store", tmp_path / "right.db")
    assert done.out == "none of these executions is known to have failed\n"


def test_an_execution_is_shown_with_what_feedback_said(cli: Cli, failing: Path) -> None:
    by_example = names(cli, "--store", failing, "--run", "eval")
    lines = [
        line.lstrip("│├└─ ") for line in cli("trace", "show", by_example["row-0"], "--store", failing).out.splitlines()
    ]
    place = lines.index("feedback")
    assert lines[place:] == [
        "feedback",
        "failure: wrong label: person → place",
        'loss on answer: 1 · The answer was "place", but "person" is right.',
        "gradient on instruction: change instruction",
        "answer: place",
        "score: 0",
    ]
    shown = cli("trace", "show", by_example["row-0"], "--store", failing, "--json").json["remarks"]
    assert [(one["node"], one["kind"], one["value"]) for one in shown] == [
        ("kind", "failure", None),
        ("kind.answer", "loss", 1.0),
        ("kind.instruction", "gradient", None),
    ]
    right = cli("trace", "show", by_example["row-3"], "--store", failing)
    assert "feedback" not in right.out
    assert cli("trace", "show", by_example["row-3"], "--store", failing, "--json").json["remarks"] == []


def test_executions_of_other_tasks_are_listed_with_all_alone(cli: Cli, failing: Path, tmp_path: Path) -> None:
    assert len(names(cli, tmp_path / "task.yaml")) == 5
    assert names(cli, tmp_path / "other.yaml") == {}
    other = cli("trace", "list", tmp_path / "other.yaml").out
    assert "no executions yet of task other (--all lists those of others); localgrad eval TASK leaves some" in other
    every = cli("trace", "list", tmp_path / "other.yaml", "--all", "--json").json["traces"]
    assert len(every) == len(cli("trace", "list", "--store", failing, "--json").json["traces"]) == 6
