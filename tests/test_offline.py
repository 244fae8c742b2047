"""Offline: run, eval and optimize work where there is no network, and never ask for one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[1]

_WATCH = """
import os, sys

def watch(event, arguments):
    if event == "socket.__new__" and arguments[1] in (2, 10) or event in ("socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["SOCKETS_SEEN"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")

sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny task on the embedded model. Its store is shared by the tests of this file, so most calls are paid once."""
    folder = tmp_path_factory.mktemp("offline")
    lines = [
        {"word": word, "kind": kind}
        for word, kind in zip(
            ["apple", "horse", "pear", "goat", "plum", "cow", "fig", "cat", "grape", "dog", "lemon", "hen"],
            ["fruit", "animal"] * 6,
            strict=True,
        )
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    node = {"layer": "predict", "inputs": ["word"], "instruction": "What is it?", "choices": "auto"}
    body = {
        "version": 1,
        "name": "words",
        "model": "smollm2-135m",
        "data": {
            "train": {"path": "train.jsonl"},
            "dev": {"from": "train", "limit": 4},
            "inputs": {"word": "word"},
            "target": "kind",
        },
        "program": {"kind": node},
        "optimize": {"proposers": ["bias", "settings"], "budget": "30calls"},
        "runtime": {"threads": 1, "context": 512},
    }
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def without_network() -> list[str]:
    """A command prefix that takes the network away; the tests that want it are skipped where the kernel forbids it."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    for options in (["-n"], ["-r", "-n"]):
        probe = subprocess.run(["unshare", *options, "true"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return ["unshare", *options]
    pytest.skip(f"the kernel gives no network namespace: {probe.stderr.strip()}")


@pytest.fixture
def watched(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment in which every Python process writes down the internet sockets it opens, and where."""
    folder, seen = tmp_path / "site", tmp_path / "sockets.txt"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_WATCH, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "SOCKETS_SEEN": str(seen)}, seen


COMMANDS = {
    "run": ["run", "TASK", "-i", "word=melon", "--json"],
    "eval": ["eval", "TASK", "--json"],
    "optimize": ["optimize", "TASK", "--json"],
}


def arguments(name: str, task: Path) -> list[str]:
    return [sys.executable, "-m", "engine", *(str(task) if word == "TASK" else word for word in COMMANDS[name])]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_without_a_network(task: Path, without_network: list[str], name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*without_network, *arguments(name, task)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body.get("answer") in ("fruit", "animal") if name == "run" else body["calls"] > 0


@pytest.mark.parametrize("name", [*COMMANDS, "doctor", "models"])
def test_a_command_opens_no_internet_socket(task: Path, watched: tuple[dict[str, str], Path], name: str) -> None:
    environment, seen = watched
    command = arguments(name, task) if name in COMMANDS else [sys.executable, "-m", "engine", name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert not seen.exists(), seen.read_text("utf-8")


def test_the_watch_would_have_seen_a_socket(watched: tuple[dict[str, str], Path]) -> None:
    environment, seen = watched
    opening = "import socket; socket.socket(socket.AF_INET).close(); socket.socket(socket.AF_INET6).close()"
    subprocess.run([sys.executable, "-c", opening], check=True, env=environment)
    assert len(seen.read_text("utf-8").splitlines()) == 2
