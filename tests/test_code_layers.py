"""Layers that run code: what counts as its value, what an error is told as, and whom the result blames."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError
from engine.inference.service import Service
from engine.program.code import with_value, written_code
from engine.program.graph import Program
from engine.program.layer import Layer
from engine.program.layers import Code, RunCode, Schema, Sql
from engine.records import Role, Step
from engine.sandbox.service import SandboxService

SILENT = Script({})


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Role, Service]]:
    folder: Path = tmp_path_factory.mktemp("shop")
    database = apsw.Connection(str(folder / "shop.db"))
    database.execute("CREATE TABLE orders (id INTEGER, team TEXT)").fetchall()
    database.executemany("INSERT INTO orders VALUES (?, ?)", [(1, "returns"), (2, "billing"), (3, None)])
    database.close()
    service = SandboxService(folder)
    yield {"sandbox": service}
    service.close()


@pytest.mark.parametrize(
    ("code", "gives"),
    [
        ("6 * 7", "42"),
        ("```python\nanswer = 6 * 7\n```\nThat is it.", "42"),
        ("def solution():\n    eggs = 16 - 3\n    return eggs * 2\n", "26"),
        ("print('hello')", "hello"),
        ("x: int = 3", "3"),
        ("total = 1\ntotal == 2", "false"),
        ("['a', 1]", '["a", 1]'),
        ("    a = 2\n    a", "2"),
        ("len(question)", "3"),
    ],
)
def test_the_value_of_code_is_found_where_models_leave_it(
    services: Mapping[Role, Service], code: str, gives: str
) -> None:
    step = done(RunCode("answer"), SILENT, services, question="how", code=code)
    assert step.outputs == {"answer": gives}
    assert len(step.calls) == 1


def test_code_that_fails_fails_its_node_or_is_told(services: Mapping[Role, Service]) -> None:
    step = done(RunCode("answer"), SILENT, services, code="1 / 0")
    assert step.error is not None
    assert "ZeroDivisionError" in step.error
    told = done(RunCode("answer", on_error="text"), SILENT, services, code="1 / 0")
    assert told.error is None
    assert told.outputs["answer"].startswith("error: line 1: ZeroDivisionError")


def test_tests_run_behind_the_code_and_say_ok_where_they_pass(services: Mapping[Role, Service]) -> None:
    layer = RunCode("check", then="tests", on_error="text")
    code = "def double(x):\n    return 2 * x"
    assert done(layer, SILENT, services, tests="assert double(2) == 4", code=code).outputs == {"check": "ok"}
    failed = done(layer, SILENT, services, tests="assert double(2) == 5", code=code).outputs["check"]
    assert failed.startswith("error: line 3: AssertionError")


def test_code_as_a_weight_reads_its_inputs_and_can_be_replaced(services: Mapping[Role, Service]) -> None:
    layer = Code("len(text.split())", output="words")
    assert done(layer, SILENT, services, text="one two three").outputs == {"words": "3"}
    edited = layer.with_parameters({"source": "text.upper()"})
    assert done(edited, SILENT, services, text="one").outputs == {"words": "ONE"}
    with pytest.raises(ContentError, match="expected text, found ''"):
        layer.parameters(("text",))["source"].check("")


def test_sql_reads_rows_one_value_or_nothing_and_never_writes(services: Mapping[Role, Service]) -> None:
    layer = Sql("shop.db")
    count = done(layer, SILENT, services, question="how many", query="SELECT count(*) FROM orders;")
    assert count.outputs == {"rows": "3"}
    rows = done(layer, SILENT, services, query="```sql\nSELECT * FROM orders ORDER BY id LIMIT 2\n```").outputs["rows"]
    assert rows == "id | team\n1 | returns\n2 | billing"
    short = done(Sql("shop.db", rows=1), SILENT, services, query="SELECT * FROM orders").outputs["rows"]
    assert short.endswith("\n…")
    assert done(layer, SILENT, services, query="SELECT * FROM orders WHERE id > 9").outputs["rows"] == "no rows"
    for wrong in ("DROP TABLE orders", "SELECT * FROM nothing", ""):
        assert done(layer, SILENT, services, query=wrong).error
    told = done(Sql("shop.db", on_error="text"), SILENT, services, query="DELETE FROM orders").outputs["rows"]
    assert told.startswith("error: ")
    assert done(layer, SILENT, services, query="SELECT count(*) FROM orders").outputs == {"rows": "3"}


def test_the_schema_stands_in_the_prompt_as_it_was_made(services: Mapping[Role, Service]) -> None:
    step = done(Schema("shop.db"), SILENT, services, question="any")
    assert step.outputs == {"tables": "CREATE TABLE orders (id INTEGER, team TEXT);"}


@pytest.mark.parametrize(
    ("layer", "output", "says"),
    [
        (RunCode("result"), "41", "Run, the code gave '41': It was wrong."),
        (Sql("shop.db"), "no rows", "The query gave 'no rows': It was wrong."),
    ],
)
def test_a_result_blames_what_was_run_word_for_word_and_asks_nobody(layer: Layer, output: str, says: str) -> None:
    step = Step("node", {"question": "Q", "code": "x"}, {layer.outputs[0]: output})
    script = Script({})
    found = gradients(layer, step, script, "question", "code")
    assert found.inputs == {"code": [says]}
    assert found.parameters == {}
    assert script.asked == []
    assert gradients(layer, step, script).inputs == {}, "code that is a program input cannot be changed"


def test_a_weight_of_code_is_criticized_as_code() -> None:
    script = Script({})
    step = Step("node", {"text": "a b"}, {"words": "1"})
    found = gradients(Code("len(text)", output="words"), step, script, "text")
    assert found.parameters == {"source": ["change code"]}
    assert found.inputs == {"text": ["change text"]}
    assert "Instruction: len(text)" in script.asked[0]
    assert gradients(Schema("shop.db"), step, script, "text").inputs == {}


@pytest.mark.parametrize("layer", [RunCode(then="tests"), Code("1"), Sql("shop.db", rows=3), Schema("shop.db")])
def test_they_are_written_and_read_alike(layer: Layer) -> None:
    round_trip(layer, "question", "code")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"layer": "run_code", "seconds": 0}, "seconds: expected 0.05 to 60, found 0"),
        ({"layer": "run_code", "on_error": "ignore"}, "on_error: expected 'fail' or 'text', found 'ignore'"),
        ({"layer": "code"}, "source is missing"),
        ({"layer": "sql"}, "database is missing"),
        ({"layer": "sql", "database": "a.db", "rows": 0}, "rows: expected a number from 1 to 200, found 0"),
    ],
)
def test_a_wrong_setting_is_named(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"inputs": ["question"], **spec}})
    assert str(raised.value) == f"node 'a': {says}"


@given(st.text())
def test_any_reply_has_code_and_code_with_a_value_keeps_its_lines(text: str) -> None:
    code = written_code(text)
    assert with_value(code).startswith(code)
