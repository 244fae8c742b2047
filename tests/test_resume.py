"""Killed runs: whatever the moment, --resume ends where the uninterrupted run would, and pays for nothing twice."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.optim.run import new_run
from engine.store.store import Store
from engine.tasks.taskfile import load_task, override

ROOT = Path(__file__).parents[1]


def kill_script(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts" / "kill.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_byte_identical_on_the_scripted_backend() -> None:
    summary = kill_script("--model", "scripted", "--budget", "1500calls", "--kills", "4", "--seed", "3")
    assert summary["accepted"] > 0, "a run that accepts nothing would prove little"
    assert summary["identical_programs"] == 4
    assert summary["calls_paid_twice"] == 0


@pytest.mark.slow
def test_twenty_killed_runs_end_byte_identical_on_the_scripted_backend() -> None:
    summary = kill_script("--model", "scripted:1ms", "--budget", "2000calls", "--kills", "20")
    assert summary["identical_programs"] == 20
    assert summary["calls_paid_twice"] == 0


@pytest.mark.model
@pytest.mark.slow
def test_a_killed_run_of_the_real_model_ends_byte_identical_too() -> None:
    summary = kill_script("--budget", "250calls", "--kills", "2")
    assert summary["identical_programs"] == 2
    assert summary["calls_paid_twice"] == 0


def optimize(store: Path, *arguments: str) -> list[str]:
    task = ROOT / "engine" / "demo" / "task.yaml"
    fixed = ["--model", "scripted:2ms", "--budget", "1200calls", "--store", str(store), "--json"]
    return [sys.executable, "-m", "engine", "optimize", str(task), *fixed, *arguments]


def test_a_live_run_is_locked_and_names_its_process(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with subprocess.Popen(optimize(store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as live:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("runs/*.lock")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        second = subprocess.run(optimize(store, "--resume"), capture_output=True, text=True, check=False)
        live.send_signal(signal.SIGKILL)
    assert second.returncode == 1
    assert f"is being worked on by process {live.pid}" in second.stderr
    assert second.stderr.count("localgrad: ") == 1
    resumed = subprocess.run(optimize(store, "--resume"), capture_output=True, text=True, check=False)
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["resumed"] is True


def test_resume_without_an_unfinished_run_begins_a_new_one(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    command = [argument if argument != "1200calls" else "300calls" for argument in optimize(store, "--resume")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["resumed"] is False
    assert "beginning a new one" in done.stderr


def test_a_run_that_began_with_the_model_in_another_format_says_what_that_costs(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    task = load_task(ROOT / "engine" / "demo" / "task.yaml")
    task = override(replace(task, file=replace(task.file, model="scripted:2ms")), budget="300calls")
    begun = new_run(task)
    with Store(store) as opened:
        opened.put_run(replace(begun, settings={**begun.settings, "identity": "another format"}))
    command = [argument for argument in optimize(store, "--resume") if argument not in ("--budget", "1200calls")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == begun.id
    assert f"{begun.id} began with the model in another format" in done.stderr
