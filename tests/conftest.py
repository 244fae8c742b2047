"""Fixtures that several test files share, and one hypothesis profile: the same examples in every run, no deadline."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings
from support_cli import Cli, Done

from engine.cli import run
from engine.inference.runtime import Runtime
from engine.inference.scripted import Script, ScriptedBackend, keyword_script
from engine.store.store import Store

settings.register_profile(
    "localgrad",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("localgrad")

TaskMaker = Callable[..., Path]
RuntimeMaker = Callable[..., Runtime]

ROWS = tuple(
    {"question": f"Where is {place} {number}?" if number % 2 else f"Who is {person} {number}?", "label": label}
    for number, (place, person, label) in enumerate(
        [("Rome", "Ada", "person"), ("Oslo", "Bob", "place")] * 6,
    )
)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSONL and return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is learned about models goes to a folder of this session, also from the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store in a folder of its own."""
    with Store(tmp_path / "state" / "store.db") as opened:
        yield opened


@pytest.fixture
def make_task(tmp_path: Path) -> TaskMaker:
    """`make_task(rows=..., **changes)` writes train.jsonl and a small task.yaml, and returns the path of the latter.

    `changes` replace top-level keys of the task; None drops one.
    """

    def make(rows: Sequence[Mapping[str, Any]] = ROWS, **changes: Any) -> Path:
        write_rows(tmp_path / "train.jsonl", rows)
        task: dict[str, Any] = {
            "version": 1,
            "name": "small",
            "model": "scripted",
            "data": {
                "train": {"path": "train.jsonl"},
                "inputs": {"question": "question"},
                "target": "label",
            },
            "program": {
                "kind": {
                    "layer": "predict",
                    "inputs": ["question"],
                    "instruction": "What does the question ask for?",
                    "choices": "auto",
                }
            },
        } | changes
        path = tmp_path / "task.yaml"
        kept = {key: value for key, value in task.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        return path

    return make


@pytest.fixture
def scripted_runtime(tmp_path: Path) -> Iterator[RuntimeMaker]:
    """`scripted_runtime(script)` opens a runtime whose answers come from a function; closed after the test."""
    opened: list[Runtime] = []

    def make(script: Script = keyword_script, store: Path | None = None) -> Runtime:
        path = store or tmp_path / f"scripted-{len(opened)}.db"
        opened.append(Runtime({"task": ScriptedBackend(script)}, Store(path)))
        return opened[-1]

    yield make
    for runtime in opened:
        runtime.close()


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """`cli("eval", path, "--json")` runs a command in this process; what C code prints is caught too."""

    def call(*arguments: str | Path) -> Done:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call
