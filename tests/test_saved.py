"""Saved programs: equal programs make equal bytes, and every mistake in a file is named by its line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError, LocalgradError, UsageError
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.program.parameters import Demo
from engine.program.saved import SavedProgram, is_saved_program, load_saved

TaskMaker = Callable[..., Path]


def saved(**changes: Any) -> SavedProgram:
    layer = Predict("Sort it.\nBe quick.", output="kind", choices=("a", "b"), bias=(0.25, -1.0))
    program = Program(layer(Input("text"))).replace({"kind.demos": [Demo({"text": "x: y"}, {"kind": "a"})]})
    settings: dict[str, Any] = {"name": "sorter", "model": "some-model", "model_sha256": "ab" * 32, "program": program}
    return SavedProgram(**settings | changes)


TEXT = f"""\
localgrad: 1
name: sorter
model:
  name: some-model
  sha256: {"ab" * 32}
program:
  inputs:
  - text
  nodes:
    kind:
      layer: predict
      inputs:
      - text
      outputs:
      - kind
      instruction: |-
        Sort it.
        Be quick.
      choices:
      - a
      - b
      bias: {{a: 0.25, b: -1.0}}
      demos:
      - inputs:
          text: 'x: y'
        outputs:
          kind: a
  output: kind.kind
"""


def test_a_saved_program_is_a_file_that_a_person_can_read(tmp_path: Path) -> None:
    saved().save(tmp_path / "program.yaml")
    assert (tmp_path / "program.yaml").read_text(encoding="utf-8") == TEXT


def test_a_saved_program_loads_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "program.yaml"
    saved().save(path)
    assert load_saved(path) == saved()


def test_equal_programs_make_equal_bytes_however_they_came_about(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one.yaml", "two.yaml", "three.yaml"))
    saved().save(one)
    detour = saved().program.replace({"kind.style": "plain", "kind.bias": {"b": -1, "a": 0.25}})
    saved(program=detour.replace({"kind.style": "chat"})).save(two)
    load_saved(one).save(three)
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_text("old")
    saved().save(path)
    assert load_saved(path).name == "sorter"
    assert [item.name for item in tmp_path.iterdir()] == ["program.yaml"]


def test_a_program_for_a_model_without_a_file_has_an_empty_hash(tmp_path: Path) -> None:
    saved(model="scripted", model_sha256="").save(tmp_path / "p.yaml")
    assert load_saved(tmp_path / "p.yaml").model_sha256 == ""


def test_without_a_name_the_file_gives_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT.replace("name: sorter\n", ""))
    assert load_saved(tmp_path / "mine.yaml").name == "mine"


def test_a_saved_program_is_told_from_a_task(tmp_path: Path, make_task: TaskMaker) -> None:
    saved().save(tmp_path / "p.yaml")
    assert is_saved_program(tmp_path / "p.yaml")
    assert not is_saved_program(make_task())


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("localgrad: 1", "localgrad: 2", 1, "not a saved program: it needs localgrad: 1, a model and a program"),
        ("localgrad: 1\n", "", 1, "not a saved program"),
        (TEXT[TEXT.index("program:") :], "program: 5\n", 1, "not a saved program"),
        (TEXT[TEXT.index("model:") : TEXT.index("program:")], "model: some-model\n", 1, "not a saved program"),
        ("name: sorter", "nmae: sorter", 2, "unknown key 'nmae': did you mean 'name'?"),
        ("  sha256: ", "  sha: ", 5, "unknown key 'sha': did you mean 'sha256'?"),
        ("  name: some-model\n", "", 3, "model.name: expected text in quotes, found None"),
        ("  name: some-model", "  name: 7", 4, "model.name: expected text in quotes, found 7"),
        ("ab" * 32, "12", 5, "model.sha256: expected text in quotes, found 12"),
        ("  inputs:\n  - text\n", "", 6, "a program needs inputs: a list of names"),
        ("  inputs:\n  - text\n", "  inputs: text\n", 7, "a program needs inputs: a list of names"),
        ("  output: kind.kind", "  output: kind.kid", 28, "node 'kind' has no output 'kid': did you mean 'kind'?"),
        ("  output: kind.kind", "  otput: kind.kind", 28, "unknown key 'otput': did you mean 'output'?"),
        ("layer: predict", "layer: predit", 11, "node 'kind': unknown layer 'predit': did you mean 'predict'?"),
        ("  inputs:\n  - text\n", "  inputs:\n  - test\n", 12, "no input or node is called 'text'"),
        ("      choices:", "      choiches:", 19, "node 'kind': unknown key 'choiches': did you mean 'choices'?"),
        ("      - b\n", "      - a\n", 19, "node 'kind': choice 'a' stands twice"),
        ("{a: 0.25, b: -1.0}", "{a: 0.25, c: -1.0}", 22, "node 'kind': bias: bias names 'c', which is no choice here"),
        ("{a: 0.25, b: -1.0}", "[1.0]", 22, "node 'kind': bias: expected 2 numbers, one per choice, found 1"),
        ("          kind: a", "          kid: a", 24, "node 'kind': demos: a demo's outputs are kind, found kid"),
        ("text: 'x: y'", "text: 5", 24, "node 'kind': demos: a demo's inputs are texts"),
        ("text: 'x: y'", "text: x: y", 25, "not YAML: mapping values are not allowed here"),
        ("      - b\n", "      - b\n      choices: [c, d]\n", 22, "not YAML: 'choices' stands here twice"),
    ],
)
def test_a_mistake_in_a_saved_program_is_named_by_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert TEXT.count(old) == 1
    path = tmp_path / "program.yaml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(ContentError) as caught:
        load_saved(path)
    assert str(caught.value).startswith(f"{path}:{line}: {says}")


def test_an_absent_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_saved(tmp_path / "program.yaml")


@given(st.data())
def test_a_damaged_saved_program_is_read_or_refused_in_one_line_with_its_place(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "program.yaml"
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 20)))
    damage = data.draw(st.text("a:[]{}- \n'\"5&*!", max_size=6) | st.text(max_size=3))
    path.write_bytes((TEXT[:start] + damage + TEXT[end:]).encode())
    said = f"{path}:"
    try:
        load_saved(path)
    except LocalgradError as error:
        said = str(error)
    assert said.startswith(f"{path}:")
    assert "\n" not in said


@given(st.data())
def test_any_value_in_place_of_another_is_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    whole: dict[str, Any] = yaml.safe_load(TEXT)
    inner: Any = whole
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], dict | list) or data.draw(st.booleans()):
            break
        inner = inner[key]
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.dates()
    inner[key] = data.draw(simple | st.lists(simple, max_size=2) | st.dictionaries(st.sampled_from("ab"), simple))
    path = tmp_path / "program.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    said = f"{path}:"
    try:
        load_saved(path)
    except LocalgradError as error:
        said = str(error)
    assert said.startswith(f"{path}:")
