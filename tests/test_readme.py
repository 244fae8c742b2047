"""README keeps its word: its Python runs as printed, its commands run as printed, its YAML is a valid task."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TaskMaker

from engine.cli import run
from engine.feedback.declared import declared_objective
from engine.optim.proposers import PROPOSERS, make_proposers
from engine.program.declared import declared_program
from engine.program.graph import Program
from engine.program.layer import LAYERS, Outside
from engine.program.layers import Predict
from engine.program.library import architecture_nodes
from engine.store.store import Store
from engine.tasks.metrics import load_metric
from engine.tasks.splits import load_splits
from engine.tasks.taskfile import load_task

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_readme_has_the_blocks_that_are_tested() -> None:
    assert len(blocks("python")) == 2
    assert len(blocks("console")) == 2
    assert len(blocks("yaml")) == 6


def test_the_task_in_readme_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(blocks("yaml")[0], "utf-8")
    assert load_task(path).file.name == "trec"


def test_the_typed_outputs_in_readme_are_valid() -> None:
    (name, settings), *_ = yaml.safe_load(blocks("yaml")[1])["program"].items()
    assert settings.pop("layer") == "predict"
    layer = Predict.from_mapping(settings, name, tuple(settings.pop("inputs")))
    assert layer.outputs == ("reasoning", "pieces", "express", "size", "code")


@pytest.mark.parametrize("number", [2, 3])
def test_the_programs_in_readme_are_valid(number: int) -> None:
    declared = yaml.safe_load(blocks("yaml")[number])["program"]
    if "architecture" in declared:
        declared = architecture_nodes(declared.pop("architecture"), ("question",), declared)
    assert Program.from_mapping(declared).outside == (Outside("index", "kb"),)


def test_the_objective_in_readme_is_valid(make_task: TaskMaker) -> None:
    declared = {
        "passages": {"layer": "predict", "inputs": ["question"], "instruction": "Find passages."},
        "kind": {"layer": "predict", "inputs": ["question", "passages"], "instruction": "Name it.", "choices": "auto"},
    }
    task = load_task(make_task(program=declared, **yaml.safe_load(blocks("yaml")[5])))
    program = declared_program(task, load_splits(task))
    objective = declared_objective(task, program, load_metric(task))
    assert (objective.most, list(objective.steps)) == (2.0, ["passages"])
    assert len(make_proposers(task.file.optimize.proposers)) == len(PROPOSERS)


@pytest.fixture
def own_layer(tmp_path: Path) -> Iterator[Path]:
    """The bundled task with README's layer in it; what it makes known is forgotten afterwards."""
    before = dict(LAYERS)
    assert run(["init", str(tmp_path / "task"), "--json"]) == 0
    (tmp_path / "task" / "mine.py").write_text(blocks("python")[0], "utf-8")
    path = tmp_path / "task" / "task.yaml"
    task = yaml.safe_load(path.read_text("utf-8")) | yaml.safe_load(blocks("yaml")[4])
    path.write_text(yaml.safe_dump({**task, "model": "scripted"}, sort_keys=False), "utf-8")
    yield path
    LAYERS.clear()
    LAYERS.update(before)


def test_a_layer_of_ones_own_is_short_traced_and_optimized(own_layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(blocks("python")[0].splitlines()) < 25
    arguments = ["--budget", "1500calls", "--proposers", "textual_gradient", "--json"]
    assert run(["optimize", str(own_layer), *arguments]) == 0
    with Store(own_layer.parent / ".localgrad" / "store.db") as store:
        (found,) = store.runs()
        rewritten = [row.note for row in store.candidates(found.id) if row.note.startswith("gist.instruction")]
        traces = [row.trace for row in store.traces(limit=3)]
    assert rewritten, "its instruction is a weight that is rewritten along a critique"
    assert all([step.node for step in trace.steps] == ["gist", "team"] for trace in traces)
    assert all(trace.steps[1].inputs["gist"] == trace.steps[0].outputs["gist"] for trace in traces)


@pytest.mark.model
def test_a_layer_of_ones_own_runs_on_the_real_model(own_layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["eval", str(own_layer), "--model", "smollm2-135m", "--limit", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0


def test_scripts_named_in_readme_exist() -> None:
    for name in re.findall(r"\bscripts/[a-z_.]+\b", README):
        assert (ROOT / name).exists(), name


@pytest.mark.model
def test_the_python_example_runs_as_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "a person" in done.stdout
    assert (tmp_path / ".localgrad" / "store.db").is_file()


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("block", [0, 1])
def test_the_commands_run_as_printed(tmp_path: Path, block: int) -> None:
    """The second block speaks of documents that a reader has."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "returns.md").write_text("A parcel is returned with the label that came with it.", "utf-8")
    (tmp_path / "passages.jsonl").write_text('{"text": "Invoices are sent by mail."}\n', "utf-8")
    commands = [line[2:] for line in blocks("console")[block].splitlines() if line.startswith("$ ")]
    assert len(commands) >= 3
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "localgrad"
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), command
