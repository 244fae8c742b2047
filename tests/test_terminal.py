"""On a terminal of 80 columns nothing is torn, and a process told to stop by SIGTERM saves and says how to go on."""

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from support_cli import Cli
from support_terminal import ENVIRONMENT, on_a_terminal

from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Example, Prediction, Remark, Step, Trace
from engine.store.rows import RunRow
from engine.store.store import Store

RUN = "support-routing-20260301-123000-ab12"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two runs and an execution with long texts."""
    path = tmp_path / "store.db"
    scores = {"dev": 0.16, "test": 0.157}
    run = RunRow(RUN, "optimize", "t", "p", "f", 0, {}, "done", 61, {"baseline": scores, "best": scores, "accepted": 3})
    example = Example("train-1", {"question": "What is the capital of Norway? " * 9}, ("Oslo",), "rows.jsonl:1")
    inner = Step("steps.plan", {"question": "日本の首都は" * 30}, {"plan": "word" * 60}, value=0.5)
    step = Step("answer", dict(example.inputs), {"answer": "Oslo " * 50}, probabilities={"a" * 50: 0.5, "b" * 50: 0.5})
    with Store(path) as opened:
        opened.put_run(run)
        opened.put_run(replace(run, id=RUN.replace("1230", "1231"), status="interrupted", report={}))
        program = Program(Predict("Say it.")(Input("question")))
        opened.put_program(program.fingerprint, program.to_mapping())
        trace = Trace(program.fingerprint, example, (replace(step, steps=(inner,)),), Prediction("Oslo " * 50), 0.25)
        said = [
            Remark(trace.program, example, "answer.steps.plan.instruction", "gradient", "Name the city alone. " * 20),
            Remark(trace.program, example, "answer", "judge", "首都" * 40, -1.5),
        ]
        opened.commit([], [trace], RUN, said)
    return path


def test_tables_and_trees_keep_to_the_width_of_the_terminal(store: Path) -> None:
    with Store(store) as opened:
        (row,) = opened.traces()
    place = ["--store", str(store)]
    narrow, wide, listed, failures, shown, full, spread = on_a_terminal(
        (80, ["runs", *place]),
        (120, ["runs", *place]),
        (80, ["trace", "list", *place]),
        (80, ["trace", "list", "--failures", *place]),
        (80, ["trace", "show", row.id[:6], *place]),
        (80, ["trace", "show", row.id[:6], "--full", *place]),
        (120, ["trace", "show", row.id[:6], *place]),
    )
    assert max(cell_len(line) for lines in (narrow, listed, failures, shown, full) for line in lines) <= 80
    assert 80 < max(cell_len(line) for line in spread) <= 120
    assert narrow[0].split() == ["run", "status", "dev", "%", "test", "%"], "what matters least is left out"
    assert len(narrow) == 4, "a head, a rule and two runs"
    assert narrow[-1].split() == [RUN, "done", "16.0", "→", "16.0", "15.7", "→", "15.7"]
    assert wide[0].split() == ["run", "started", "status", "dev", "%", "test", "%", "accepted", "spent"]
    assert len(listed) == 2, "a head and an execution"
    assert listed[1].startswith(row.id[:10])
    assert listed[1].endswith("…")
    assert [line.split() for line in failures[1:]] == [
        ["1", "answer", "wrong", "answer:", "too", "long", row.id[:10], "train-1"]
    ]
    for tree in (shown, full, spread):
        assert all(re.match(r"[│├└ ]", line) for line in tree[1:]), "what goes on in the next line stays in the tree"


def started(tmp_path: Path, cli: Cli, name: str, phase: str, *arguments: str) -> tuple[int, str]:
    """Start a command on a new task, send it SIGTERM twice once `phase` has begun: its exit code and stderr."""
    assert cli("init", tmp_path / "task").code == 0
    command = [sys.executable, "-m", "engine", name, str(tmp_path / "task" / "task.yaml"), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if phase in line:
                break
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
        return process.wait(timeout=30), said


def test_sigterm_saves_an_optimization_and_says_how_to_go_on(tmp_path: Path, cli: Cli) -> None:
    code, said = started(tmp_path, cli, "optimize", "proposing", "--model", "scripted:5ms", "--budget", "4000calls")
    assert code == 143, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("localgrad: interrupted and saved; go on with: ")
    assert last.endswith(f"optimize {tmp_path / 'task' / 'task.yaml'} --resume")
    with Store(tmp_path / "task" / ".localgrad" / "store.db") as opened:
        assert [run.status for run in opened.runs()] == ["interrupted"]
        assert opened.calls_paid()[0] > 50, "the baseline's calls are kept"


def test_sigterm_ends_an_evaluation_in_one_line(tmp_path: Path, cli: Cli) -> None:
    code, said = started(tmp_path, cli, "eval", "loading", "--model", "scripted:50ms")
    assert code == 143, said
    complaints = [line for line in said.splitlines() if line.startswith("localgrad: ")]
    assert complaints == [
        "localgrad: interrupted; finished calls are stored, so the same command goes on where it stopped"
    ]
    assert "Traceback" not in said
