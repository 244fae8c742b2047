"""Code that a model wrote reaches nothing, ends in time, and leaves this process as it was."""

import hashlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_attempts import (
    CHANCE,
    CLOCKS,
    ENVIRONMENT,
    FILES,
    IMPORTS,
    LOOPS,
    MEMORY,
    NESTED_SOURCES,
    NETWORK,
    OUTPUT,
    RECURSION,
    SLEEPS,
    SQL_ENDLESS,
    SQL_REFUSED,
    WALKS,
    limited,
    listed,
)

from engine.errors import ContentError, LocalgradError, UsageError
from engine.sandbox.outcome import Outcome
from engine.sandbox.python import Limits, PythonSandbox, python_identity
from engine.sandbox.sql import run_sql, schema_of

LIMITS = Limits(seconds=0.5)
MARGIN_S = 0.25
VARIABLE = "LOCALGRAD_TEST_CANARY"

REACHING = [
    pytest.param(source, id=f"{name}-{number}")
    for name, group in {
        "imports": IMPORTS,
        "files": FILES,
        "environment": ENVIRONMENT,
        "network": NETWORK,
        "walks": WALKS,
    }.items()
    for number, source in enumerate(listed(group))
]
# A few of each group always run; all of them take half a minute.
EXHAUSTING = [
    pytest.param(source, limit, id=f"{name}-{number}", marks=[pytest.mark.slow] * (number not in fast))
    for name, group, fast in (
        ("loops", limited(LOOPS), {18}),
        ("memory", limited(MEMORY), {0, 6, 12, 24}),
        ("recursion", limited(RECURSION), {0, 4, 10, 14}),
        ("sources", [(source, "any") for source in NESTED_SOURCES], {0, 1, 5}),
        ("output", limited(OUTPUT), {7, 9, 12, 13}),
    )
    for number, (source, limit) in enumerate(group)
]


class Outside:
    """What the attempts are after, each with a secret: a file, a variable, a port that listens, a place to write to."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = folder
        (folder / "canary.txt").write_text(self.secret, encoding="utf-8")
        os.environ[VARIABLE] = self.secret
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.setblocking(False)

    def named_in(self, source: str) -> str:
        """The source with its places filled in."""
        return (
            source.replace("@FILE@", str(self.folder / "canary.txt"))
            .replace("@NEW@", str(self.folder / "new"))
            .replace("@PORT@", str(self.door.getsockname()[1]))
            .replace("@VARIABLE@", VARIABLE)
        )

    def assert_untouched(self, outcome: Outcome) -> None:
        assert self.secret not in f"{outcome.value}{outcome.printed}{outcome.error}"
        assert [path.name for path in self.folder.iterdir()] == ["canary.txt"]
        assert (self.folder / "canary.txt").read_text(encoding="utf-8") == self.secret
        assert os.environ[VARIABLE] == self.secret
        with pytest.raises(BlockingIOError):
            self.door.accept()

    def close(self) -> None:
        self.door.close()
        del os.environ[VARIABLE]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    made = Outside(tmp_path_factory.mktemp("outside"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def sandbox(outside: Outside) -> Iterator[PythonSandbox]:
    """One for all tests, opened when the secrets are already there, and made warm."""
    with PythonSandbox(workers=2) as opened:
        opened.run("1", {}, LIMITS)
        yield opened


def in_time(run: Callable[[], Outcome], seconds: float = LIMITS.seconds) -> Outcome:
    """The outcome, asserted to come within the limit and its margin.

    On a busy machine this process may itself wait for a processor: what came late is run once more.
    """
    for _ in range(2):
        start = time.perf_counter()
        outcome = run()
        took = time.perf_counter() - start
        if took <= seconds + MARGIN_S:
            return outcome
    pytest.fail(f"took {took:.3f} s, and late once before")


def worker_pids() -> set[int]:
    """The interpreter's processes that this process has started."""
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        children |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in children if b"subprocess" in Path(f"/proc/{pid}/cmdline").read_bytes()}


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


# ── Python: what works ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 1", "2"),
        ("x = 3", "null"),
        ("", "null"),
        ("total = 0\nfor n in numbers:\n    total += n\ntotal", "6"),
        ("{'name': name, 'upper': name.upper()}", '{"name": "Ada é", "upper": "ADA É"}'),
        ("(1, 2.5, None, True, [{}])", "[1, 2.5, null, true, [{}]]"),
        ("import math, re, json\njson.loads('[1]') + [math.gcd(12, 18), re.sub('a', 'b', 'aa')]", '[1, 6, "bb"]'),
        ("10 ** 40", "1" + "0" * 40),
        ("'\\x1b[0m \"quoted\"'", '"\\u001b[0m \\"quoted\\""'),
        ("nested = 0\nfor i in range(90): nested = [nested]\nnested", "[" * 90 + "0" + "]" * 90),
    ],
)
def test_the_value_is_that_of_the_last_expression_as_json(sandbox: PythonSandbox, source: str, value: str) -> None:
    assert sandbox.run(source, {"numbers": [1, 2, 3], "name": "Ada é"}, LIMITS) == Outcome(value=value)


def test_what_is_printed_is_kept_up_to_the_limit_and_the_program_goes_on(sandbox: PythonSandbox) -> None:
    source = "import sys\nprint('a', 'b')\nprint('c', file=sys.stderr)\nprint('x' * 100_000)\n7"
    outcome = sandbox.run(source, {}, Limits(output_chars=20))
    assert outcome == Outcome(value="7", printed="a b\nc\n" + "x" * 14)


def test_what_was_printed_before_an_error_or_a_limit_is_kept(sandbox: PythonSandbox) -> None:
    assert sandbox.run("print('seen')\n1 / 0", {}, LIMITS).printed == "seen\n"
    assert sandbox.run("print('seen')\n[0] * 10**9", {}, LIMITS).printed == "seen\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f():\n    return 1 / 0\nf()", "line 2: ZeroDivisionError: division by zero"),
        ("x = 1\ny = = 2", "line 2: SyntaxError: Expected an expression"),
        ("nothing", "line 1: NameError: name 'nothing' is not defined"),
        ("1\ud800", "SyntaxError: source code is not valid UTF-8 (contains lone surrogates)"),
        ("{1, 2}", "the result is not JSON: of type set"),
        ("b'a'", "the result is not JSON: of type bytes"),
        ("import datetime; datetime.date.today()", "the result is not JSON: of type date"),
        ("class Point: pass\nPoint()", "the result is not JSON: of type Point"),
        ("def f(): pass\n[f]", "the result is not JSON: <function 'f' at 0xc>"),
        ("{1: 2}", "the result is not JSON: a dict with a key that is no text but int"),
        ("float('nan')", "the result is not JSON: the number nan"),
        ("a = []\na.append(a)\na", "the result is not JSON: [...]"),
        ("10 ** 5000", "the result is not JSON: an integer with more digits than Python writes"),
        ("a = 0\nfor i in range(101): a = [a]\na", "the result is not JSON: a value nested too deep, or in itself"),
    ],
)
def test_an_error_is_one_line_that_says_what_and_where(sandbox: PythonSandbox, source: str, error: str) -> None:
    assert sandbox.run(source, {}, LIMITS) == Outcome(error=error)


@pytest.mark.parametrize(
    ("source", "error", "limit"),
    [
        ("while True: pass", "time limit: ran for more than 0.2 s", "time"),
        ("[0] * 10**9", "memory limit: needed more than 16 MB", "memory"),
        ("def f(): f()\nf()", "recursion limit: calls nested more than 50 deep, or brackets too deep", "recursion"),
        ("'x' * 99", "output limit: the value is longer than 100 characters", "output"),
    ],
)
def test_an_error_names_the_limit_that_ended_it(sandbox: PythonSandbox, source: str, error: str, limit: str) -> None:
    outcome = sandbox.run(source, {}, Limits(0.2, 16 << 20, recursion=50, output_chars=100))
    assert (outcome.error, outcome.limit, outcome.value) == (error, limit, None)


def test_one_run_knows_nothing_of_another(sandbox: PythonSandbox) -> None:
    assert sandbox.run("secret = 3\nimport math\nmath.pi", {"given": 1}, LIMITS).error is None
    for name in ("secret", "given", "math"):
        assert "NameError" in str(sandbox.run(name, {}, LIMITS).error)


@pytest.mark.parametrize("inputs", [{"a b": 1}, {"class": 1}, {"x": {1, 2}}, {"x": float("nan")}, {"x": "\ud800"}])
def test_inputs_that_are_no_json_are_refused(sandbox: PythonSandbox, inputs: dict[str, object]) -> None:
    with pytest.raises(ContentError, match=r"^inputs?\b"):
        sandbox.run("1", inputs, LIMITS)  # type: ignore[arg-type]


def test_limits_out_of_bounds_are_refused() -> None:
    for wrong in ({"seconds": 0.0}, {"memory_bytes": 1}, {"recursion": 10**6}, {"output_chars": 0}):
        with pytest.raises(ContentError, match=r"expected \d"):
            Limits(**wrong)  # type: ignore[arg-type]


def test_several_runs_at_once_come_back_in_their_order(sandbox: PythonSandbox) -> None:
    sources = [f"{number} * factor" for number in range(32)]
    sources[7] = "while True: pass"
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda source: sandbox.run(source, {"factor": 10}, Limits(seconds=0.1)), sources))
    assert outcomes[7].limit == "time"
    assert [outcome.value for outcome in outcomes] == [str(10 * n) if n != 7 else None for n in range(32)]


def test_the_identity_names_the_version_and_a_closed_sandbox_says_so() -> None:
    with PythonSandbox() as opened:
        assert python_identity().startswith("pydantic-monty 1.4.")
    with pytest.raises(LocalgradError, match="cannot go on"):
        opened.run("1", {}, LIMITS)


# ── Python: what must not work ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("source", REACHING)
def test_nothing_outside_is_reached(sandbox: PythonSandbox, outside: Outside, source: str) -> None:
    outcome = in_time(lambda: sandbox.run(outside.named_in(source), {}, LIMITS))
    assert outcome.value is None
    assert outcome.limit is None
    outside.assert_untouched(outcome)
    assert sandbox.run("1 + 1", {}, LIMITS).value == "2"


@pytest.mark.parametrize(("source", "limit"), EXHAUSTING)
def test_what_would_exhaust_the_machine_ends_in_time(sandbox: PythonSandbox, source: str, limit: str) -> None:
    outcome = in_time(lambda: sandbox.run(source, {}, LIMITS))
    assert limit == "any" or outcome.limit in (limit, "time")  # on a busy machine, time may be the first to run out
    for text in (outcome.value, outcome.printed, outcome.error):
        assert len(text or "") <= LIMITS.output_chars
    assert str(outcome.error).isprintable()
    assert in_time(lambda: sandbox.run("1 + 1", {}, LIMITS)).value == "2"


@pytest.mark.parametrize("source", listed(CLOCKS))
def test_the_clock_is_not_the_real_one(sandbox: PythonSandbox, source: str) -> None:
    outcome = sandbox.run(source, {}, LIMITS)
    if outcome.value is None:
        assert "AttributeError" in str(outcome.error)  # not every function is there
    else:
        assert "2000" in outcome.value or outcome.value == "946684800.0"


def test_chance_is_the_same_in_every_process(sandbox: PythonSandbox) -> None:
    with PythonSandbox() as other:
        for source in listed(CHANCE):
            first = sandbox.run(source, {}, LIMITS)
            assert first == other.run(source, {}, LIMITS) == other.run(source, {}, LIMITS), source


@pytest.mark.parametrize(
    "source", [pytest.param(source, marks=[pytest.mark.slow] * ("while" in source)) for source in listed(SLEEPS)]
)
def test_sleeping_takes_no_time_and_endless_sleeping_ends(sandbox: PythonSandbox, source: str) -> None:
    outcome = in_time(lambda: sandbox.run(source, {}, LIMITS))
    assert (outcome.limit == "time") == ("while" in source)


def test_there_are_enough_attempts_and_none_twice() -> None:
    sources = [param.values[0] for param in (*REACHING, *EXHAUSTING)] + listed(CLOCKS + CHANCE + SLEEPS)
    assert len(set(sources)) == len(sources) >= 250


@linux
def test_a_worker_that_met_a_limit_is_replaced_and_others_are_kept() -> None:
    before = worker_pids()
    with PythonSandbox() as opened:
        for source, replaced in (("1", False), ("1 / 0", False), ("{1}", False), ("[0] * 10**9", True), ("1", False)):
            opened.run("1", {}, LIMITS)
            (first,) = worker_pids() - before
            opened.run(source, {}, LIMITS)
            opened.run("1", {}, LIMITS)
            (second,) = worker_pids() - before
            assert (first != second) == replaced
    assert worker_pids() == before


@linux
def test_workers_know_no_environment_and_may_write_no_file(sandbox: PythonSandbox, outside: Outside) -> None:
    sandbox.run("1", {}, LIMITS)
    assert worker_pids()
    for pid in worker_pids():
        assert outside.secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]


def test_nothing_reaches_the_terminal(sandbox: PythonSandbox, capfd: pytest.CaptureFixture[str]) -> None:
    sandbox.run("print('text')\nlist(range(1_000_000))", {}, LIMITS)
    assert capfd.readouterr() == ("", "")


TOKENS = """
x y ( ) [ ] { } : , . = + - * ** // % < == 1 0 10**9 'a' f'{x}' def f lambda for in while if else try except raise
import return await async class print range str list open eval exec None True # \\ @ ;
""".split()  # noqa: SIM905
PROGRAMS = st.lists(st.sampled_from([*TOKENS, "\n", "\n\t", "\0"]), max_size=30).map(" ".join)
WORDS = "SELECT * FROM notes big , ( ) ; x 1 ' AND --".split()  # noqa: SIM905


@given(source=st.text(max_size=200) | PROGRAMS)
def test_any_text_is_an_outcome_in_time(sandbox: PythonSandbox, source: str) -> None:
    outcome = in_time(lambda: sandbox.run(source, {}, Limits(seconds=0.1)), 0.1)
    if outcome.value is not None:
        json.loads(outcome.value)
    else:
        assert outcome.error
        assert outcome.error.isprintable()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=30)
@given(value=VALUES)
def test_json_goes_in_and_comes_out_the_same(sandbox: PythonSandbox, value: object) -> None:
    outcome = sandbox.run("value", {"value": value}, LIMITS)  # type: ignore[dict-item]
    assert json.loads(str(outcome.value)) == value


# ── SQL ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "notes.db"
    with apsw.Connection(str(path)) as db:
        db.execute(
            "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT);"
            "CREATE VIEW seen AS SELECT text FROM notes;"
            "INSERT INTO notes VALUES (1, 'one'), (2, NULL), (3, 'é');"
            "CREATE TABLE big(x);"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)"
            " INSERT INTO big SELECT printf('%040d', i) FROM n;"
        )
    db.close()
    other = apsw.Connection(str(path.with_name("other.db")))
    other.execute("CREATE TABLE secret(a); INSERT INTO secret VALUES ('a secret of another file')")
    other.close()
    return path


def state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_rows_of_a_statement_are_json(database: Path) -> None:
    outcome = run_sql(database, "SELECT id, text AS said FROM notes ORDER BY id; -- all")
    rows = '{"columns": ["id", "said"], "rows": [[1, "one"], [2, null], [3, "é"]], "complete": true}'
    assert outcome == Outcome(value=rows)


@pytest.mark.parametrize(("rows", "characters"), [(5, 10_000), (1000, 300)])
def test_rows_beyond_a_cap_are_left_out_and_it_is_said(database: Path, rows: int, characters: int) -> None:
    outcome = run_sql(database, "SELECT x FROM big ORDER BY x", rows=rows, characters=characters)
    read = json.loads(str(outcome.value))
    assert not read["complete"]
    assert read["rows"] == [[f"{number:040d}"] for number in range(1, 6)]
    assert len(str(outcome.value)) <= characters


def test_the_schema_is_that_of_the_file(database: Path) -> None:
    assert schema_of(database).splitlines() == [
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT);",
        "CREATE VIEW seen AS SELECT text FROM notes;",
        "CREATE TABLE big(x);",
    ]


@pytest.mark.parametrize("statement", ["PRAGMA table_info(notes)", "EXPLAIN QUERY PLAN SELECT 1", "VALUES (1), (2)"])
def test_harmless_statements_beside_select_are_let_through(database: Path, statement: str) -> None:
    assert run_sql(database, statement).error is None


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, marks=[pytest.mark.slow] * (number % 5 != 0))
        for number, statement in enumerate(listed(SQL_REFUSED))
    ],
)
def test_sql_that_does_more_than_read_is_refused(database: Path, statement: str) -> None:
    before = state(database.parent)
    filled = statement.replace("@FILE@", str(database.with_name("other.db")))
    filled = filled.replace("@NEW@", str(database.with_name("new")))
    outcome = in_time(lambda: run_sql(database, filled, seconds=0.5), 0.5)
    assert outcome.error
    assert outcome.error.isprintable()
    assert "secret of another file" not in outcome.error
    assert state(database.parent) == before


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, marks=[pytest.mark.slow] * (number != 4))
        for number, statement in enumerate(listed(SQL_ENDLESS))
    ],
)
def test_sql_without_end_ends_in_time(database: Path, statement: str) -> None:
    outcome = in_time(lambda: run_sql(database, statement, seconds=0.5), 0.5)
    assert outcome.limit in ("time", "memory")


def test_a_file_that_is_no_database_is_named(database: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(ContentError, match=r"text\.db: cannot be read as an SQLite database"):
        run_sql(text, "SELECT 1")
    with pytest.raises(UsageError, match=r"absent\.db: no such file"):
        schema_of(tmp_path / "absent.db")


@pytest.mark.slow
@settings(max_examples=40)
@given(statement=st.text(max_size=100) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_as_sql_is_an_outcome(database: Path, statement: str) -> None:
    outcome = run_sql(database, statement, seconds=0.5)
    assert json.loads(outcome.value)["columns"] if outcome.value else outcome.error
