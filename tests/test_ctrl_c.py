"""Ctrl-C in the middle of an optimization of the real model: saved at once, and gone on with afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.store.store import Store

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[1]
COLOURS = ("blue", "green", "red")
THINGS = ("sky", "grass", "blood", "sea", "leaf", "rose", "jeans", "frog", "tomato", "whale", "lime", "cherry")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A small task on the embedded model, with short rows."""
    lines = [{"thing": f"{n} {thing}", "colour": COLOURS[n % 3]} for n, thing in enumerate(THINGS * 4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    body = {
        "version": 1,
        "name": "things",
        "model": "smollm2-135m",
        "data": {
            "train": {"path": "train.jsonl"},
            "dev": {"from": "train", "limit": 12},
            "inputs": {"thing": "thing"},
            "target": "colour",
        },
        "program": {
            "colour": {"layer": "predict", "inputs": ["thing"], "instruction": "Name its colour.", "choices": "auto"}
        },
        "optimize": {"proposers": ["bias", "demos", "textual_gradient"], "budget": "110calls"},
        "runtime": {"context": 2048},
    }
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return path


def command(task: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "engine", "optimize", str(task), *arguments]


def listen_to_interrupts() -> None:
    """In the child: a shell makes its background jobs deaf to Ctrl-C, and the tests may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(task: Path, phase: str, *arguments: str) -> tuple[int, float, str]:
    """Start an optimization and interrupt it shortly after `phase` has begun: exit code, seconds to exit, stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command(task, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=listen_to_interrupts,
    ) as running:
        assert running.stderr is not None
        said = ""
        for line in running.stderr:
            said += line
            if phase in line:
                break
        time.sleep(0.2)
        started = time.monotonic()
        running.send_signal(signal.SIGINT)
        said += running.stderr.read()
        code = running.wait(timeout=60)
        return code, time.monotonic() - started, said


def test_the_way_on_names_what_finds_the_run_again(task: Path, tmp_path: Path) -> None:
    store = tmp_path / "other store.db"
    code, _, said = interrupted(task, "baseline", "--seed", "3", "--store", str(store))
    assert code == 130, said
    assert f"optimize {task} --resume --seed 3 --store '{store}'" in said


@pytest.mark.parametrize("phase", ["baseline", "proposing"])
def test_an_interrupted_run_is_saved_and_says_how_to_go_on(task: Path, phase: str) -> None:
    code, seconds, said = interrupted(task, phase)
    complaints = [line for line in said.splitlines() if "localgrad" in line and "interrupted" in line]
    assert code == 130, said
    assert seconds < 3
    assert len(complaints) == 1
    assert complaints[0].startswith("localgrad: interrupted and saved; go on with: ")
    assert complaints[0].endswith(f"optimize {task} --resume")
    assert "Traceback" not in said
    with Store(task.parent / ".localgrad" / "store.db") as store:
        (run,) = store.runs()
        assert run.status == "interrupted"
        assert store.calls_paid()[0] >= (12 if phase == "proposing" else 0)


def test_an_interrupted_run_goes_on_to_its_end_and_pays_for_nothing_twice(task: Path) -> None:
    proposers = ["--proposers", "bias,demos"]
    code, _, said = interrupted(task, "proposing", *proposers)
    assert code == 130, said
    path = task.parent / ".localgrad" / "store.db"
    with Store(path) as store:
        first = store.runs()[0]
        stored_before = store.calls_paid()[0]
    assert stored_before >= 12
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    resumed = subprocess.run(
        command(task, "--resume", "--json"), capture_output=True, text=True, check=False, env=environment
    )
    assert resumed.returncode == 0, resumed.stderr
    body = json.loads(resumed.stdout)
    assert body["resumed"] is True
    assert body["run"] == first.id
    assert body["cached_calls"] >= stored_before
    with Store(path) as store:
        (run,) = store.runs()
        assert run.status == "done"
        different, paid = store.calls_paid()
    assert different == paid > stored_before
