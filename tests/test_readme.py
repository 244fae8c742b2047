"""README keeps its word: its Python runs as printed, its commands run as printed, its YAML is a valid task."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.program.layers import Predict
from engine.tasks.taskfile import load_task

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_readme_has_the_blocks_that_are_tested() -> None:
    assert len(blocks("python")) == 1
    assert len(blocks("console")) == 2
    assert len(blocks("yaml")) == 2


def test_the_task_in_readme_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(blocks("yaml")[0], "utf-8")
    assert load_task(path).file.name == "trec"


def test_the_typed_outputs_in_readme_are_valid() -> None:
    (name, settings), *_ = yaml.safe_load(blocks("yaml")[1])["program"].items()
    assert settings.pop("layer") == "predict"
    layer = Predict.from_mapping(settings, name, tuple(settings.pop("inputs")))
    assert layer.outputs == ("reasoning", "pieces", "express", "size", "code")


def test_scripts_named_in_readme_exist() -> None:
    for name in re.findall(r"\bscripts/[a-z_.]+\b", README):
        assert (ROOT / name).exists(), name


@pytest.mark.model
def test_the_python_example_runs_as_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], capture_output=True, text=True, check=False, cwd=tmp_path
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
