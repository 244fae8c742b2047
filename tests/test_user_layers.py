"""Layers of the user's own: a short file, named in a task, is drawn, run, optimized and saved like any other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import engine.program.layers  # noqa: F401 (its layers are known before any other)
from engine.cli import cli, run
from engine.errors import ContentError, UsageError
from engine.program.layer import LAYERS
from engine.program.userlayers import load_layers

LAYER = """
from dataclasses import dataclass
from typing import Literal

from engine.flows import ask
from engine.program.layer import Layer, LayerResult
from engine.program.parameters import Choice, Text
from engine.records import Generate, Plain


@dataclass(frozen=True)
class Hint(Layer):
    kind = "hint"
    instruction: str = "Give a hint."
    output: str = "hint"
    tone: Literal["short", "long"] = "short"

    def parameters(self, inputs):
        return {"instruction": Text(self.instruction), "tone": Choice(self.tone, ("short", "long"))}

    def flow(self, inputs):
        prompt = Plain(f"{self.instruction} ({self.tone})\\n{' '.join(inputs.values())}\\nHint:")
        completion = yield from ask(Generate(prompt, max_tokens=20, stop=("\\n",)))
        return LayerResult({self.output: completion.text or ""}, error=completion.error)
"""
PROGRAM = {
    "hint": {"layer": "hint", "inputs": ["question"]},
    "kind": {"layer": "predict", "inputs": ["question", "hint"], "instruction": "What is it?", "choices": "auto"},
}


@pytest.fixture(autouse=True)
def known_layers() -> Iterator[None]:
    """What a test makes known is forgotten after it."""
    before = dict(LAYERS)
    yield
    LAYERS.clear()
    LAYERS.update(before)


@pytest.fixture
def task(make_task: Any, tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(LAYER)
    path: Path = make_task(program=PROGRAM, layers=["mine.py"])
    return path


def says(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False, standalone_mode=False)
    assert result.return_value in (0, None)
    return result.output


def test_a_layer_of_ones_own_is_drawn_optimized_saved_and_run(task: Path) -> None:
    assert "hint" in says("graph", str(task))
    says("optimize", str(task), "--budget", "400calls", "--proposers", "bias,settings,textual_gradient", "--json")
    saved = next(task.parent.glob(".localgrad/runs/*/program.yaml"))
    written = yaml.safe_load(saved.read_text())
    assert written["layers"] == ["mine.py"]
    assert written["folder"] == "../../.."
    says("run", str(saved), "-i", "question=Where is Oslo?")
    says("diff", str(saved))
    assert "hint" in says("graph", str(saved))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = 1", "defines no layer: a subclass of Layer with a kind"),
        ("import nothing_here", "ModuleNotFoundError"),
        (
            LAYER.replace('"hint"\n    instr', '"predict"\n    instr'),
            "its kind 'predict' is that of Predict: rename it",
        ),
    ],
)
def test_a_file_that_cannot_be_taken_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ContentError, match="task.yaml:3: .*mine.py.*" + wrong):
        load_layers(["mine.py"], tmp_path, "task.yaml:3")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    def flow(", "    def flows(", "node 'hint': Hint lacks flow: write it"),
        ("completion = ", "nothing = ", "layer 'hint' failed: NameError: "),
        ("{self.output:", "{'wrong':", "layer 'hint' gave no text for 'hint', which is one of its outputs"),
        ('completion.text or ""', "5", "layer 'hint' gave no text for 'hint', which is one of its outputs"),
    ],
)
def test_a_mistake_in_a_layer_of_ones_own_is_one_line(
    task: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    assert old in LAYER
    (task.parent / "mine.py").write_text(LAYER.replace(old, new))
    assert run(["eval", str(task)]) == 1
    said = capsys.readouterr().err.strip()
    assert told in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_moved_program_says_where_it_looks(task: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    says("optimize", str(task), "--budget", "100calls", "--json")
    saved = next(task.parent.glob(".localgrad/runs/*/program.yaml"))
    moved = tmp_path / "away" / "program.yaml"
    moved.parent.mkdir()
    moved.write_text(saved.read_text())
    assert run(["run", str(moved), "-i", "question=Why?"]) == 2
    assert ".." not in capsys.readouterr().err


def test_an_absent_file_is_named_by_the_line_that_asks_for_it(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (task.parent / "mine.py").unlink()
    with pytest.raises(UsageError, match=r"mine\.py: no such file"):
        load_layers(["mine.py"], task.parent, "task.yaml:3")
    assert run(["eval", str(task)]) == 2
    assert "mine.py: no such file" in capsys.readouterr().err


def test_a_wrong_setting_of_ones_own_layer_is_named_by_line(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task.write_text(task.read_text().replace("layer: hint", "layer: hint\n    tone: loud"))
    assert run(["eval", str(task)]) == 1
    said = capsys.readouterr().err
    assert "tone: expected 'short' or 'long', found 'loud'" in said
