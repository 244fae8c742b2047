"""The store: what is committed comes back or is computed again, whoever else writes, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunLocked, StoreError
from engine.flows import ask
from engine.inference.scripted import ScriptedBackend
from engine.records import (
    Call,
    Chat,
    Completion,
    Example,
    Generate,
    Message,
    Plain,
    Prediction,
    Request,
    Score,
    Step,
    Trace,
)
from engine.store.keys import call_key, canonical, seed_of
from engine.store.locks import locked_run
from engine.store.rows import CandidateRow, RunRow
from engine.store.store import Store


def call(key: str = "k", **answer: Any) -> Call:
    completion = Completion(key=key, prompt_tokens=7, generated_tokens=2, computed_tokens=5, seconds=0.25)
    return Call(key, "model", "generate", "{}", "a prompt", replace(completion, **answer or {"text": "an answer"}))


def sql(store: Store, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Reach into the file past the store."""
    connection = apsw.Connection(str(store.path))
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "an answer", "finish": "stop"},
        {"text": "", "finish": "length"},
        {"text": "line\nbreak \u2028 é 😀 \x00"},
        {"loglikelihoods": (-0.125, -3.5)},
        {"loglikelihoods": ()},
    ],
)
def test_a_committed_call_comes_back_whole_even_after_reopening(tmp_path: Path, answer: dict[str, Any]) -> None:
    given_call = call(**answer)
    with Store(tmp_path / "store.db") as store:
        store.commit([given_call])
        assert store.completion("k") == given_call.completion
    with Store(tmp_path / "store.db") as store:
        assert store.completion("k") == given_call.completion
        assert store.call("k") == given_call


def test_an_unknown_call_is_absent(store: Store) -> None:
    assert store.completion("nothing") is None
    assert store.call("nothing") is None


def test_a_failed_call_is_kept_but_never_reused(store: Store) -> None:
    store.commit([call(error="out of memory")])
    assert store.completion("k") is None
    assert store.calls_paid() == (1, 1)
    assert "out of memory" in sql(store, "SELECT answer FROM calls")[0][0]


def test_a_failed_call_made_again_is_replaced_with_all_its_numbers(store: Store) -> None:
    failed = call(error="out of memory")
    store.commit([replace(failed, completion=replace(failed.completion, prompt_tokens=0, computed_tokens=0))])
    store.commit([call()])
    assert store.completion("k") == call().completion


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE calls SET answer = replace(answer, 'answer', 'onswer')",
        "UPDATE calls SET answer = substr(answer, 2)",
        "UPDATE calls SET answer = ''",
        "UPDATE calls SET answer = x'ff00'",
        "UPDATE calls SET answer = CAST(x'7bfffe7d' AS TEXT)",
        "UPDATE calls SET digest = 'not one'",
    ],
)
def test_a_damaged_row_counts_as_absent_until_it_is_computed_again(store: Store, damage: str) -> None:
    store.commit([call()])
    sql(store, damage)
    assert store.completion("k") is None
    assert store.call("k") is None
    store.commit([call()])
    assert store.completion("k") == call().completion
    assert store.calls_paid() == (1, 2)


def test_a_runtime_computes_a_damaged_call_again_and_no_other(
    tmp_path: Path, scripted_runtime: Callable[..., Any]
) -> None:
    asked: list[str] = []

    def script(request: Request, prompt: str) -> str:
        asked.append(prompt)
        return prompt.upper()

    path = tmp_path / "store.db"
    requests = [Generate(Plain(text), 5) for text in ("one", "two", "three")]
    first = scripted_runtime(script, path)
    answers = [first.run(ask(request)) for request in requests]
    sql(first.store, "UPDATE calls SET answer = replace(answer, 'TWO', 'TOO')")
    again = scripted_runtime(script, path)
    assert [again.run(ask(request)) for request in requests] == answers
    assert asked == ["one", "two", "three", "two"]
    assert again.usage.cached_calls == 2


def test_paid_counts_how_often_a_call_was_computed(store: Store) -> None:
    assert store.calls_paid() == (0, 0)
    store.commit([call("a"), call("b")])
    store.commit([call("a")])
    store.commit([call("a"), call("c")])
    assert store.calls_paid() == (3, 5)
    assert dict(sql(store, "SELECT key, paid FROM calls")) == {"a": 3, "b": 1, "c": 1}


def test_a_commit_that_fails_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.commit([call("a"), call("b", loglikelihoods=(float("nan"),))])
    assert store.calls_paid() == (0, 0)
    store.commit([call("a")])
    assert store.calls_paid() == (1, 1)


def test_a_trace_is_stored_once_for_a_run_a_program_and_an_example(store: Store) -> None:
    example = Example("e1", {"question": "q"}, ("a", "b"), "rows.jsonl:1")
    step = Step("answer", {"question": "q"}, {"answer": "a"}, ("k1", "k2"), (-0.5, -1.0), {"a": 0.6, "b": 0.4})
    trace = Trace("f1", example, (step,), Prediction("a", {"answer.answer": "a"}, {"a": 0.6, "b": 0.4}), 1.0)
    store.commit([], [trace, replace(trace, program="f2")], run="r1")
    store.commit([], [replace(trace, score=0.5)], run="r1")
    store.commit([], [trace], run="r2")
    rows = sql(store, "SELECT run, program, example, score FROM traces ORDER BY run, program")
    assert rows == [("r1", "f1", "e1", 0.5), ("r1", "f2", "e1", 1.0), ("r2", "f1", "e1", 1.0)]
    steps = sql(store, "SELECT steps, accepted FROM traces")[0]
    assert '"calls":["k1","k2"]' in steps[0]
    assert steps[1] == '["a","b"]'


# ── several writers ──────────────────────────────────────────────────────────────────────────────


def test_two_stores_in_threads_on_one_file_write_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            with Store(path) as store:
                for number in range(40):
                    store.commit([call(f"{name}{number}"), call("shared")])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store(path) as store:
        assert store.calls_paid() == (81, 160)
        assert all(store.completion(f"{name}{number}") for name in "ab" for number in range(40))


WRITER = """
import sys
from engine.records import Call, Completion
from engine.store.store import Store
print("ready", flush=True)
sys.stdin.readline()
with Store(sys.argv[1]) as store:
    for number in range(25):
        key = f"{sys.argv[2]}{number}"
        store.commit([Call(key, "m", "generate", "{}", "p", Completion(key=key, text="x"))])
"""


def test_processes_that_make_one_store_at_once_write_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.close()
        writer.stdout.close()
    with Store(path) as store:
        assert store.calls_paid() == (75, 75)


# ── files that are no store ──────────────────────────────────────────────────────────────────────


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


@pytest.mark.parametrize("content", [b"hello", b"name: a task file\n" * 500, bytes(range(256)) * 40])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    assert "not a localgrad store" in refused(path)
    assert path.read_bytes() == content
    assert [item.name for item in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.parametrize("version", [0, 1, 99])
def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.db"
    connection = apsw.Connection(str(path))
    connection.execute(f"CREATE TABLE recipes (name); PRAGMA user_version = {version}").fetchall()
    connection.close()
    before = path.read_bytes()
    assert "not a localgrad store" in refused(path)
    assert path.read_bytes() == before


def test_a_store_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    newer = int(sql(store, "PRAGMA user_version")[0][0]) + 1
    store.close()
    sql(store, f"PRAGMA user_version = {newer}")
    before = store.path.read_bytes()
    said = refused(store.path)
    assert f"written by a newer localgrad (store version {newer}); update localgrad" in said
    assert store.path.read_bytes() == before


def test_a_store_whose_pages_are_damaged_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        store.commit([call(f"k{number}", text="x" * 500) for number in range(200)])
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught, Store(path) as store:
        store.completion("k7")
    assert "damaged: move it away or choose another --store" in str(caught.value)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while where the tests run as root, to whom every folder is writable."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_cannot_be_written_to_is_reported(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with unprivileged():
        assert "choose another --store" in refused(open_folder / "store.db")
    assert list(open_folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with unprivileged(), pytest.raises(StoreError, match=r"new: cannot make this folder: .*; choose another --store"):
        Store(open_folder / "new" / "store.db")


def test_a_store_in_a_read_only_folder_is_reported(open_folder: Path) -> None:
    path = open_folder / "store.db"
    Store(path).close()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    with unprivileged(), pytest.raises(StoreError, match="choose another --store"), Store(path) as store:
        store.commit([call()])


def test_a_path_that_leads_through_a_file_or_to_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make this folder"):
        Store(tmp_path / "file" / "store.db")
    assert "choose another --store" in refused(tmp_path)


# ── migrations ───────────────────────────────────────────────────────────────────────────────────

SCRIPTS = sorted(
    item.name for item in (resources.files("engine.store") / "migrations").iterdir() if item.name.endswith(".sql")
)


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [int(name[:4]) for name in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize("empty", [False, True])
def test_a_new_store_has_every_migration_applied(tmp_path: Path, empty: bool) -> None:
    path = tmp_path / "deep" / "er" / "store.db"
    if empty:
        path.parent.mkdir(parents=True)
        path.touch()
    with Store(path) as store:
        assert sql(store, "PRAGMA user_version") == [(len(SCRIPTS),)]
        assert sql(store, "PRAGMA journal_mode") == [("wal",)]


def test_opening_again_changes_neither_tables_nor_rows(store: Store) -> None:
    store.commit([call()])
    schema = sql(store, "SELECT sql FROM sqlite_master ORDER BY name")
    store.close()
    for _ in range(2):
        with Store(store.path) as again:
            assert again.completion("k") == call().completion
            assert sql(again, "SELECT sql FROM sqlite_master ORDER BY name") == schema


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()


# ── runs, candidates, rounds, programs ───────────────────────────────────────────────────────────

RUN = RunRow("r1", "optimize", "task", "/a/task.yaml", "ff", 3, {"budget": "10m", "proposers": ["bias"]})
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def test_a_run_comes_back_as_it_was_put_with_the_time_it_started(store: Store) -> None:
    store.put_run(RUN)
    (read,) = store.runs()
    assert replace(read, started="") == RUN
    assert read.started.endswith("Z")
    done = replace(RUN, status="done", seconds=1.5, report={"best": {"dev": 0.5}, "é": None})
    store.put_run(done)
    (again,) = store.runs()
    assert again == replace(done, started=read.started)


def test_putting_a_run_again_keeps_its_seed_and_takes_new_settings(store: Store) -> None:
    store.put_run(RUN)
    store.put_run(replace(RUN, seed=9, settings={"budget": "20m"}, status="interrupted"))
    (read,) = store.runs()
    assert (read.seed, read.settings, read.status) == (3, {"budget": "20m"}, "interrupted")


def test_runs_are_listed_newest_first(store: Store) -> None:
    for number, name in enumerate("bca"):
        store.put_run(replace(RUN, id=name))
        sql(store, "UPDATE runs SET started = ? WHERE id = ?", f"2024-01-0{number + 1}", name)
    assert [run.id for run in store.runs()] == ["a", "c", "b"]


@given(
    st.builds(
        CandidateRow,
        number=st.integers(0, 999),
        round=st.integers(1, 99),
        proposer=st.text(max_size=9),
        note=st.text(max_size=9),
        parent=st.text(max_size=9),
        program=st.text(max_size=9),
        examples=st.integers(0, 999),
        score=NUMBERS,
        p_value=st.none() | NUMBERS,
        level=st.none() | NUMBERS,
        accepted=st.booleans(),
    )
)
def test_a_candidate_comes_back_as_it_was_put(tmp_path: Path, row: CandidateRow) -> None:
    assert CandidateRow.from_columns(row.to_columns()) == row
    with Store(":memory:") as store:
        store.put_candidate("r", row)
        assert store.candidates("r") == [row]


def test_candidates_belong_to_their_run_and_a_replay_writes_each_again(store: Store) -> None:
    row = CandidateRow(1, 1, "bias", "n", "p", "f", 10, 0.5, None, None, accepted=False)
    for number in (2, 1):
        store.put_candidate("r1", replace(row, number=number))
    store.put_candidate("r2", row)
    store.put_candidate("r1", replace(row, accepted=True, p_value=0.01, level=0.025))
    assert [(found.number, found.accepted) for found in store.candidates("r1")] == [(1, True), (2, False)]
    assert store.candidates("r2") == [row]
    assert store.candidates("r3") == []


def test_what_was_read_is_remembered_as_first_read(store: Store) -> None:
    assert store.reading("r", 1, "calls left", lambda: 40) == 40
    assert store.reading("r", 1, "calls left", lambda: 7) == 40
    assert store.reading("r", 2, "calls left", lambda: 9.5) == 9.5
    assert store.reading("r", 1, "seconds left", lambda: 3) == 3
    assert store.reading("s", 1, "calls left", lambda: 4) == 4


def test_a_program_is_remembered_by_its_fingerprint(store: Store) -> None:
    assert store.program("f") is None
    mapping = {"inputs": ["é"], "nodes": {"b": {}, "a": {}}}
    store.put_program("f", mapping)
    store.put_program("f", mapping)
    read = store.program("f")
    assert read == mapping
    assert list(read["nodes"]) == ["b", "a"]


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(max_size=6)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=3)
PROMPTS = st.builds(Plain, TEXT) | st.builds(Chat, MESSAGES.map(tuple), TEXT)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
SETTINGS: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    Generate: {
        "prompt": PROMPTS,
        "max_tokens": st.integers(1, 9),
        "stop": TEXTS,
        "temperature": st.floats(0, 2),
        "sample": st.integers(0, 9),
        "grammar": st.none() | TEXT,
    },
    Score: {"prompt": PROMPTS, "continuations": TEXTS},
}
BACKEND = ScriptedBackend(lambda request, prompt: "")


def key_of(request: Request, model: str = "m") -> tuple[str, str]:
    """The key of a request, and the prompt as the model reads it."""
    prepared = BACKEND.prepare(request)
    return call_key(model, prepared.content), prepared.prompt


@given(st.sampled_from([Generate, Score]), st.data())
def test_a_key_changes_with_every_setting_that_changes_the_answer(kind: type, data: st.DataObject) -> None:
    settings = SETTINGS[kind]
    request = kind(**{name: data.draw(values) for name, values in settings.items()})
    name = data.draw(st.sampled_from(sorted(settings)))
    other = replace(request, **{name: data.draw(settings[name])})
    (one, prompt), (two, other_prompt) = key_of(request), key_of(other)
    same = prompt == other_prompt if name == "prompt" else request == other
    assert (one == two) == same


@given(st.sampled_from([Generate, Score]), st.data())
def test_a_key_does_not_change_with_who_asks(kind: type, data: st.DataObject) -> None:
    request = kind(**{name: data.draw(values) for name, values in SETTINGS[kind].items()})
    assert key_of(request) == key_of(replace(request, role="optimizer"))


CONTENT = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@given(CONTENT, CONTENT, TEXT, TEXT)
def test_keys_are_equal_exactly_where_model_and_content_are(
    one: dict[str, Any], two: dict[str, Any], model: str, other: str
) -> None:
    assert (call_key(model, one) == call_key(model, two)) == (canonical(one) == canonical(two))
    assert (call_key(model, one) == call_key(other, one)) == (model == other)
    assert call_key(model, dict(reversed(one.items()))) == call_key(model, one)
    assert len(call_key(model, one)) == 40


def test_a_key_stays_the_same_from_one_version_to_the_next() -> None:
    content = {"kind": "score", "prompt": "é\n", "continuations": [" a", " b"], "end": None}
    assert call_key("91ab | llama 1", content) == "ac6cebd218f1c74320b001f14536f8814c4c412c"


def test_seeds_follow_from_names_alone() -> None:
    assert seed_of("run", 1) == seed_of("run", 1)
    assert len({seed_of("run", 1), seed_of("run", 2), seed_of("run", "1"), seed_of("run1"), seed_of("ru", "n", 1)}) == 5
    assert 0 <= seed_of("run", 1) < 2**64


# ── locks ────────────────────────────────────────────────────────────────────────────────────────

HOLDER = """
import sys, time
from pathlib import Path
from engine.store.locks import locked_run
with locked_run(Path(sys.argv[1]), "r1"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of run r1."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_run_held_by_another_process_is_locked_and_names_its_pid_until_it_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(RunLocked, match=rf"run r1 is being worked on by process {process.pid};"):
            locked_run(tmp_path, "r1").__enter__()
        with locked_run(tmp_path, "r2"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked_run(tmp_path, "r1"):
            assert (tmp_path / "r1.lock").read_text() == str(os.getpid())


def test_a_lock_is_held_within_the_block_only(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked_run(folder, "r1"), pytest.raises(RunLocked, match=f"process {os.getpid()};"), locked_run(folder, "r1"):
        pass
    with pytest.raises(KeyError), locked_run(folder, "r1"):
        raise KeyError
    with locked_run(folder, "r1"):
        pass
