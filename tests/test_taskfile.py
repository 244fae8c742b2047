"""The task file: everything it may say, and one line with its place for everything it may not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError, LocalgradError, UsageError
from engine.tasks.taskfile import load_task, override, read_yaml

TaskMaker = Callable[..., Path]

GOOD = """\
version: 1
name: small
model: scripted
data:
  train: {path: train.jsonl}
  inputs: {question: question}
program:
  kind: {layer: predict}
"""

FULL: dict[str, Any] = {
    "version": 1,
    "name": "full",
    "model": "scripted",
    "data": {
        "train": {"path": "train.jsonl", "limit": 5},
        "dev": {"from": "train", "limit": 2},
        "test": {"path": "test.jsonl"},
        "inputs": {"question": "text"},
        "target": "label",
        "accepted": "others",
    },
    "program": {"kind": {"layer": "predict"}},
    "metric": {"python": "metric.py:score"},
    "optimize": {"proposers": ["bias"], "budget": "30s", "seed": 3, "optimizer_model": "m"},
    "runtime": {"threads": 2, "context": 512, "parallel": "auto", "gpu_layers": -1},
}


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "task.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path) -> str:
    """What is said about a task file, without the folder it lies in."""
    with pytest.raises(ContentError) as caught:
        load_task(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_full_task_file_is_read_with_every_setting(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, yaml.safe_dump(FULL)))
    file = task.file
    assert (file.name, file.model, file.optimize.proposers, file.optimize.seed) == ("full", "scripted", ("bias",), 3)
    assert (file.data.dev.source, file.data.dev.limit, file.data.accepted) == ("train", 2, "others")
    assert (file.runtime.threads, file.runtime.parallel, file.runtime.gpu_layers) == (2, "auto", -1)
    assert (task.budget.amount, task.budget.unit, task.folder) == (30, "seconds", tmp_path)


def test_defaults_fill_what_a_small_task_leaves_out(make_task: TaskMaker) -> None:
    file = load_task(make_task()).file
    assert (file.metric, file.optimize.budget, file.runtime.threads) == ("exact_match", "10m", "auto")
    assert (file.data.dev.source, file.data.test) == ("train", None)


@pytest.mark.parametrize(
    ("place", "wrong", "meant"),
    [
        ((), "modle", "model"),
        (("data",), "tarjet", "target"),
        (("data", "train"), "pth", "path"),
        (("data", "dev"), "form", "from"),
        (("data", "test"), "limits", "limit"),
        (("metric",), "pyhton", "python"),
        (("optimize",), "bugdet", "budget"),
        (("runtime",), "thread", "threads"),
    ],
)
def test_an_unknown_key_at_any_depth_names_its_line_and_the_nearest_key(
    tmp_path: Path, place: tuple[str, ...], wrong: str, meant: str
) -> None:
    task = yaml.safe_load(yaml.safe_dump(FULL))
    inner = task
    for part in place:
        inner = inner[part]
    inner[wrong] = "x"
    text = yaml.safe_dump(task, sort_keys=False)
    line = next(number for number, content in enumerate(text.split("\n"), 1) if content.strip() == f"{wrong}: x")
    name = ".".join((*place, wrong))
    said = complaint(written(tmp_path, text))
    assert said == f"task.yaml:{line}: unknown key {name!r}: did you mean {meant!r}?"


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, GOOD + "runtime:\n  zzz: 1\n"))
    assert said == (
        "task.yaml:10: unknown key 'runtime.zzz': known here: threads, context, parallel, gpu_layers, main_gpu, "
        "kv_type, deterministic, tune, allow_remote"
    )


def test_source_is_written_from_and_nothing_else(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, GOOD.replace("  inputs", "  dev: {source: train}\n  inputs")))
    assert said == "task.yaml:6: unknown key 'data.dev.source': known here: path, from, limit"


@pytest.mark.parametrize("missing", ["version", "name", "model", "data", "program"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    task = {key: value for key, value in FULL.items() if key != missing}
    assert complaint(written(tmp_path, yaml.safe_dump(task))) == f"task.yaml:1: {missing!r} is missing"


def test_a_missing_key_inside_a_section_is_named_with_the_sections_line(tmp_path: Path) -> None:
    text = GOOD.replace("  inputs: {question: question}\n", "")
    assert complaint(written(tmp_path, text)) == "task.yaml:4: 'data.inputs' is missing"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("metric: 5", "metric: expected text (quote yes, no, on, off, dates and numbers), found 5"),
        ("metric: {}", "'metric.python' is missing"),
        ("metric: {python: 5}", "metric.python: expected text (quote yes, no, on, off, dates and numbers), found 5"),
        ("optimize: 5", "optimize: expected a mapping of keys, found 5"),
        ("optimize:", "optimize: expected a mapping of keys, found nothing"),
        ("optimize: {proposers: bias}", "optimize.proposers: expected a list, found 'bias'"),
        ("optimize: {seed: -1}", "optimize.seed: input should be greater than or equal to 0, found -1"),
        ("optimize: {seed: .nan}", "optimize.seed: input should be a finite number, found nan"),
        ("optimize: {seed: [1]}", "optimize.seed: input should be a valid integer, found a list"),
        (
            "optimize: {budget: 10 parsecs}",
            "budget '10 parsecs' is not understood: write it like 30s, 10m, 800calls or 2Mtok",
        ),
        ("optimize: {budget: 0calls}", "budget '0calls' leaves nothing to spend"),
        ("runtime: {threads: 0}", "runtime.threads: input should be greater than or equal to 1, found 0"),
        ("runtime: {gpu_layers: -2}", "runtime.gpu_layers: input should be greater than or equal to -1, found -2"),
    ],
)
def test_a_value_of_the_wrong_kind_says_where_what_and_what_was_found(tmp_path: Path, line: str, says: str) -> None:
    assert complaint(written(tmp_path, f"{GOOD}{line}\n")) == f"task.yaml:9: {says}"


def test_of_several_mistakes_the_message_is_about_one_that_is_there(tmp_path: Path) -> None:
    said = complaint(written(tmp_path, GOOD.replace("model: scripted", "model: 5") + "runtime: {threads: 0}\n"))
    assert said.startswith("task.yaml:3: model: expected text")


@pytest.mark.parametrize("name", ["", "two words", "a/b"])
def test_a_name_that_cannot_name_a_file_is_refused(tmp_path: Path, name: str) -> None:
    assert complaint(written(tmp_path, GOOD.replace("small", f"'{name}'"))).startswith("task.yaml:2: name: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "task.yaml:1: expected a mapping of keys, found nothing"),
        ("# only a comment\n", "task.yaml:1: expected a mapping of keys, found nothing"),
        ("- 1\n", "task.yaml:1: expected a mapping of keys, found a list"),
        ("just text", "task.yaml:1: expected a mapping of keys, found 'just text'"),
        ("a: 1\nb: c: d\n", "task.yaml:2: not YAML: mapping values are not allowed here"),
        ("a: 1\nb: [1, 2\n", "task.yaml:3: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: *nowhere\n", "task.yaml:1: not YAML: found undefined alias 'nowhere'"),
        ("a: 1\nb: !!python/name:os.system x\n", "task.yaml:2: not YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "task.yaml:2: not YAML: but found another document"),
        ("a: 1\nb: 2\x01\n", "task.yaml:2: not YAML: it holds the character U+0001"),
        (b"a: 1\nb: \xff\n", "task.yaml:2: not UTF-8 text"),
        ('a: 1\nb: "\\ud800"\n', "task.yaml:2: an escape stands for half a character, which is no text"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', "task.yaml:2: not YAML: "),
        ("a: 1\nb: 2024-13-45\n", "task.yaml:2: '2024-13-45' is no timestamp: quote it if text is meant"),
        ("a: 1\nb: !!bool perhaps\n", "task.yaml:2: 'perhaps' is no bool: quote it if text is meant"),
        ('a: 1\nb: !!int ""\n', "task.yaml:2: '' is no int: quote it if text is meant"),
        ("a: 1\nb: !!timestamp x\n", "task.yaml:2: 'x' is no timestamp: quote it if text is meant"),
        ("a: 1\n2: b\n", "task.yaml:2: keys must be text, found 2"),
        ("a: 1\nyes: b\n", "task.yaml:2: keys must be text, found True"),
        ("a: 1\n? [b]\n: c\n", "task.yaml:2: keys must be text, found a list"),
        ("a: 1\nb: &b [*b]\n", "task.yaml:1: not YAML: nested too deeply"),
        ("a: " + "[" * 20_000, "task.yaml:1: not YAML: nested too deeply"),
        ("a: " + "9" * 5_000, "task.yaml:1: '9999"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_line_with_its_place(tmp_path: Path, text: str | bytes, says: str) -> None:
    said = complaint(written(tmp_path, text))
    assert said.startswith(says)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (GOOD + "name: again\n", 9, "name"),
        (GOOD.replace("{path: train.jsonl}", "{path: train.jsonl, path: b}"), 5, "path"),
        (GOOD.replace("{layer: predict}", "\n    layer: predict\n    layer: predict"), 10, "layer"),
    ],
)
def test_a_key_that_stands_twice_is_named_at_any_depth(tmp_path: Path, text: str, line: int, key: str) -> None:
    assert complaint(written(tmp_path, text)) == f"task.yaml:{line}: not YAML: {key!r} stands here twice"


def test_a_merged_key_may_be_written_over(tmp_path: Path) -> None:
    text = "base: &base\n  a: 1\n  b: 2\none:\n  <<: *base\n  b: 3\ntwo: *base\n"
    data, lines, _ = read_yaml(written(tmp_path, text))
    assert (data["one"], data["two"]) == ({"a": 1, "b": 3}, {"a": 1, "b": 2})
    assert (lines[("one", "a")], lines[("one", "b")]) == (2, 6)


def test_aliases_that_multiply_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    said = complaint(written(tmp_path, "\n".join(lines)))
    assert said.endswith("more than 200,000 values, its aliases written out")


def test_a_file_far_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    assert "larger than 4,000,000 bytes" in complaint(written(tmp_path, "#" * 4_000_001))


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD.replace("\n", "\r\n")])
def test_byte_order_mark_and_crlf_change_nothing(tmp_path: Path, text: str) -> None:
    plain = load_task(written(tmp_path, GOOD))
    other = load_task(written(tmp_path, text))
    assert (other.file, other.fingerprint, other.lines) == (plain.file, plain.fingerprint, plain.lines)


def test_lines_are_counted_alike_with_crlf(tmp_path: Path) -> None:
    text = (GOOD + "metrik: x\n").replace("\n", "\r\n")
    assert complaint(written(tmp_path, text)) == "task.yaml:9: unknown key 'metrik': did you mean 'metric'?"


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml: no such file"):
        load_task(tmp_path / "nothing.yaml")
    with pytest.raises(UsageError, match="is a folder, not a file"):
        load_task(tmp_path)
    written(tmp_path, GOOD)
    with pytest.raises(UsageError, match=r"is a folder; give .*task\.yaml"):
        load_task(tmp_path)


def test_where_names_the_nearest_enclosing_place(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, GOOD))
    assert task.where(("data", "inputs", "question")) == f"{task.path}:6"
    assert task.where(("data", "dev", "limit")) == f"{task.path}:4"
    assert task.where(("nowhere",)) == f"{task.path}:1"


def test_the_fingerprint_follows_the_text(tmp_path: Path) -> None:
    one = load_task(written(tmp_path, GOOD)).fingerprint
    assert load_task(written(tmp_path, GOOD)).fingerprint == one
    assert load_task(written(tmp_path, GOOD.replace("small", "tiny"))).fingerprint != one


def test_override_replaces_what_is_given_and_keeps_the_rest(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, yaml.safe_dump(FULL)))
    changed = override(task, seed=0, budget=None, proposers=("demos",))
    assert (changed.file.optimize.seed, changed.file.optimize.proposers) == (0, ("demos",))
    assert (changed.file.optimize.budget, changed.file.data) == ("30s", task.file.data)
    assert task.file.optimize.seed == 3


def survives(path: Path) -> None:
    """Reading gives a task or a `LocalgradError` of one line with the path, never anything else."""
    said = f"{path}:"
    try:
        load_task(path)
    except LocalgradError as error:
        said = str(error)
    assert said.startswith(f"{path}:")
    assert "\n" not in said


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    survives(written(tmp_path, content))


@given(st.text(alphabet="ab1:-[]{}&*!|>'\"%@`#,?<= \n\t\\\u0085.~", max_size=40))
def test_arbitrary_yaml_signs_never_raise_anything_else(tmp_path: Path, content: str) -> None:
    survives(written(tmp_path, content))


@given(st.data())
def test_a_damaged_task_file_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    text = yaml.safe_dump(FULL, sort_keys=False).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    survives(written(tmp_path, text[:start] + data.draw(st.binary(max_size=6)) + text[end:]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_any_value_in_any_place_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    task = yaml.safe_load(yaml.safe_dump(FULL))
    inner = task
    while True:
        key = data.draw(st.sampled_from(sorted(inner)))
        if not isinstance(inner[key], dict) or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(VALUES)
    survives(written(tmp_path, yaml.safe_dump(task, allow_unicode=True)))
