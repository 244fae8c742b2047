"""localgrad check: what it prints, for people and for programs, and how it exits; what eval and optimize say of it."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support_cli import Cli, complaint
from support_terminal import on_a_terminal

from engine.store.store import Store

TaskMaker = Callable[..., Path]

WHO, WHERE = "Who is {0} {1}?", "Where is {0} {1}?"
ROWS = [
    {"question": (WHO if number % 2 else WHERE).format("Ada" if number % 2 else "Oslo", number),
     "label": "person" if number % 2 else "place"}
    for number in range(40)
]  # fmt: skip
TOLD = "What does the question ask for?"
DATA = {"train": {"path": "train.jsonl"}, "inputs": {"question": "question"}, "target": "label"}
HINTED = DATA | {"inputs": {"question": "question", "hint": "label"}}


def node(**settings: Any) -> dict[str, Any]:
    """A program of one Predict."""
    return {"kind": {"layer": "predict", "inputs": ["question"], "instruction": TOLD, **settings}}


@pytest.fixture
def sound(make_task: TaskMaker) -> Path:
    return make_task(ROWS)


@pytest.fixture
def doubtful(make_task: TaskMaker) -> Path:
    """A task with two warnings, on lines 15 and 22, and a note on line 23."""
    twice = f"{TOLD} Is it a person, a place or a thing? {TOLD}"
    aside = {"layer": "predict", "inputs": ["question"], "instruction": "Say it in other words."}
    return make_task(ROWS, program={"aside": aside, **node(instruction=twice, choices="auto", stop=["."])})


@pytest.fixture
def broken(make_task: TaskMaker) -> Path:
    """A task in which every reply is cut off, as a note says that long ones might be."""
    return make_task(
        ROWS, program=node(outputs={"why": "text", "kind": {"choices": ["person", "place"]}}, max_tokens=1)
    )


def line_of(path: Path, text: str, time: int = 1) -> int:
    """The line in which a text stands for the so manieth time."""
    return [number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line][time - 1]


def test_a_sound_task_has_nothing_to_find(cli: Cli, sound: Path) -> None:
    done = cli("check", sound)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "small: nothing found"
    assert "localgrad:" not in done.err


def test_each_finding_has_a_line_that_begins_with_its_place(cli: Cli, doubtful: Path) -> None:
    done = cli("check", doubtful)
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if line.startswith(str(doubtful))]
    places = [line.removeprefix(f"{doubtful}:").split(": ")[:3] for line in lines]
    assert places == [
        [str(line_of(doubtful, "  aside:")), "warning", "aside"],
        [str(line_of(doubtful, "instruction: What")), "warning", "kind.instruction"],
        [str(line_of(doubtful, "instruction: What")), "warning", "kind.instruction"],
        [str(line_of(doubtful, "    stop:")), "note", "kind.stop"],
    ]
    assert "it names thing, and kind is one of person, place; " in lines[2]
    assert done.out.splitlines()[-1] == "small: 3 warnings, 1 note"


def test_an_error_ends_with_exit_code_1(cli: Cli, broken: Path) -> None:
    done = cli("check", broken)
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if ": error: " in line]
    assert line.startswith(f"{broken}:{line_of(broken, 'max_tokens')}: error: kind.max_tokens: the shortest reply has ")
    assert done.out.splitlines()[-1] == "small: 1 error, 1 note; put what is an error right first"


def test_json_says_the_same_and_more(cli: Cli, doubtful: Path, broken: Path) -> None:
    body = cli("check", broken, "--json").json
    assert (body["ok"], body["errors"], body["warnings"], body["notes"]) == (False, 1, 0, 1)
    finding, _ = body["findings"]
    assert finding["kind"] == "cap"
    assert finding["where"] == f"{broken}:{line_of(broken, 'max_tokens')}"
    assert (body["context"], body["counted"]) == (8192, True)
    (request,) = body["requests"]
    assert request["place"] == "kind"
    assert request["worst"] == sum(request[name] for name in ("fixed", "demos", "longest", "others", "reply"))
    assert request["share"] == pytest.approx(request["worst"] / 8192, abs=1e-4)


def test_tokens_stand_in_a_table_of_requests(cli: Cli, doubtful: Path) -> None:
    lines = cli("check", doubtful).out.splitlines()
    title = next(number for number, line in enumerate(lines) if line.startswith("tokens of each request; share of a"))
    table = [line.split() for line in lines[title + 1 :] if line.split()]
    assert " ".join(table[0]) == "request of fixed demos a row longest row from nodes reply most share"
    assert [row[0] for row in table[2:4]] == ["aside", "kind"]
    assert table[2][1:3] == ["9", "·"], "words: five of the instruction, three turns' heads and the input's label"


def test_a_finding_about_rows_names_the_row(cli: Cli, make_task: TaskMaker) -> None:
    rows = [*ROWS, {"question": "How many?", "label": "number"}]
    path = make_task(rows, data=DATA | {"dev": {"path": "dev.jsonl"}}, program=node(choices="auto"))
    (path.parent / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev_rows()))
    body = cli("check", path, "--json").json
    assert [(one["kind"], one["where"]) for one in body["findings"]] == [
        ("lone_label", f"{path.parent}/train.jsonl:41")
    ]
    assert str(path.parent / "train.jsonl:41: warning: data.train: once in train: number") in cli("check", path).out


def dev_rows() -> Sequence[dict[str, str]]:
    return [{"question": f"Who is number {number}?", "label": "person"} for number in range(8)]


def test_places_in_nodes_parts_and_architectures_have_their_lines(cli: Cli, make_task: TaskMaker) -> None:
    stop = {"stop": ["\n"], "outputs": ["why", "answer"]}
    parts = {"layer": "predict", "instruction": TOLD, "temperature": 0.5, **stop}
    vote = {"layer": "vote", "inputs": ["question"], "of": parts}
    path = make_task(ROWS, program={"inputs": ["question"], "nodes": {"kind": vote}, "output": "kind"})
    (finding,) = [one for one in cli("check", path, "--json").json["findings"] if one["severity"] == "error"]
    assert finding["place"] == "kind.of.stop"
    assert finding["where"] == f"{path}:{line_of(path, 'stop:')}"
    nodes = node(choices="auto")
    path = make_task(ROWS, program={"inputs": ["hint", "question"], "nodes": nodes, "output": "kind"}, data=HINTED)
    (finding,) = cli("check", path, "--json").json["findings"]
    assert (finding["kind"], finding["where"]) == ("unused_input", f"{path}:{line_of(path, '  inputs:', 2)}")
    path = make_task(ROWS, program={"architecture": "predict", **stop})
    (finding,) = [one for one in cli("check", path, "--json").json["findings"] if one["severity"] == "error"]
    assert finding["where"] == f"{path}:{line_of(path, 'stop:')}"


def test_what_is_missing_beside_the_program_is_an_error(cli: Cli, make_task: TaskMaker) -> None:
    path = make_task(ROWS, program={"architecture": "rag", "index": "nowhere"})
    (finding,) = cli("check", path, "--json").json["findings"]
    assert (finding["severity"], finding["kind"], finding["place"]) == ("error", "outside", "passages")
    assert finding["where"] == f"{path}:{line_of(path, 'nowhere')}"
    assert "nowhere" in finding["text"]
    look = {"layer": "schema", "inputs": ["question"], "database": "shop.db"}
    ask = {"layer": "predict", "inputs": ["tables", "question"], "instruction": TOLD}
    path = make_task(ROWS, program={"tables": look, "answer": ask})
    assert cli("check", path).code == 1
    with sqlite3.connect(path.parent / "shop.db") as database:
        database.execute("CREATE TABLE orders (id INTEGER)")
    database.close()
    assert cli("check", path).code == 0


def test_without_the_model_tokens_are_estimated(cli: Cli, sound: Path, broken: Path) -> None:
    done = cli("check", broken, "--model", "nowhere")
    assert done.code == 0, "an estimate proves no error"
    said = complaint(done, 0)
    assert said.startswith("localgrad: unknown model 'nowhere'")
    assert said.endswith("; tokens are estimated, one for every four characters")
    assert "tokens of each request, estimated" in done.out
    body = cli("check", broken, "--model", "nowhere", "--json").json
    assert (body["counted"], body["context"], body["warnings"]) == (False, None, 1)
    body = cli("check", broken, "--model", "nowhere", "--json").json
    assert body["requests"][0]["share"] is None


def test_no_call_is_made(cli: Cli, doubtful: Path) -> None:
    assert cli("check", doubtful).code == 0
    with Store(doubtful.parent / ".localgrad" / "store.db") as store:
        assert store.calls_paid()[0] == 0


def test_a_task_that_cannot_be_read_is_one_line(cli: Cli, make_task: TaskMaker, tmp_path: Path) -> None:
    assert "no such file" in complaint(cli("check", tmp_path / "none.yaml"), 2)
    path = make_task(ROWS, program=node(choices=["one"]))
    assert complaint(cli("check", path), 1).startswith(f"localgrad: {path}:")


def test_the_bundled_task_has_nothing_to_find(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", tmp_path / "demo").code == 0
    body = cli("check", tmp_path / "demo" / "task.yaml", "--model", "scripted", "--json").json
    assert body["findings"] == []


@pytest.mark.model
def test_the_bundled_task_is_counted_by_its_model(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", tmp_path / "demo").code == 0
    body = cli("check", tmp_path / "demo" / "task.yaml", "--json").json
    assert (body["findings"], body["counted"], body["context"]) == ([], True, 8192)
    (request,) = body["requests"]
    assert 30 < request["fixed"] < 80
    assert 0 < request["rows"] < request["longest"] < 100


def test_on_a_terminal_nothing_is_torn(doubtful: Path) -> None:
    narrow, wide = on_a_terminal((80, ["check", str(doubtful)]), (120, ["check", str(doubtful)]))
    assert max(map(cell_len, narrow)) <= 80
    assert max(map(cell_len, wide)) <= 120
    for lines in (narrow, wide):
        said = [line.split()[:2] for line in lines if line.startswith(("warning", "note"))]
        assert said == [["warning", "aside"], *[["warning", "kind.instruction"]] * 2, ["note", "kind.stop"]]
        assert any(line.strip().startswith(f"task.yaml:{line_of(doubtful, '    stop:')}") for line in lines)
        assert sum("→" in line for line in lines) == 4
        assert lines[-1] == "small: 3 warnings, 1 note"


# ── what other commands say ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", [("eval",), ("optimize", "--budget", "30calls", "--proposers", "bias")])
def test_eval_and_optimize_say_in_one_line_that_there_is_something(
    cli: Cli, doubtful: Path, command: tuple[str, ...]
) -> None:
    done = cli(command[0], doubtful, *command[1:])
    (said,) = [line for line in done.err.splitlines() if line.startswith("localgrad: ")]
    assert done.code == 0
    assert said.startswith("localgrad: 3 warnings: ")
    assert said.endswith(f" check {doubtful}")


def test_a_sound_task_is_run_without_a_word(cli: Cli, sound: Path) -> None:
    done = cli("eval", sound, "--json")
    assert "localgrad: " not in done.err
    assert done.json["n"] > 0


def test_of_a_saved_program_eval_says_what_is_wrong_with_it(cli: Cli, sound: Path, doubtful: Path) -> None:
    assert cli("optimize", doubtful, "--budget", "30calls", "--proposers", "bias").code == 0
    (program,) = (doubtful.parent / ".localgrad" / "runs").glob("*/program.yaml")
    said = [line for line in cli("eval", doubtful, "--program", program).err.splitlines() if "check" in line]
    assert [line.split(": ")[1] for line in said] == ["3 warnings"]
