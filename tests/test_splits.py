"""Splits: no example is both learned from and judged on, none is empty, and labels do not depend on limits."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from engine.errors import ContentError, UsageError
from engine.records import Example
from engine.tasks.schema import Task
from engine.tasks.splits import Splits, load_splits
from engine.tasks.taskfile import load_task

TaskMaker = Callable[..., Path]


def numbered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"q{n}", "label": "ab"[n % 2]} for n in range(start, start + count)]


def section(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "train": {"path": "train.jsonl"},
        "inputs": {"question": "question"},
        "target": "label",
    } | changes
    return {key: value for key, value in data.items() if value is not None}


def rows_file(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def questions(examples: Sequence[Example]) -> list[str]:
    return [example.inputs["question"] for example in examples]


def complaint(task: Task) -> str:
    with pytest.raises(ContentError) as caught:
        load_splits(task)
    return str(caught.value).replace(f"{task.folder}/", "")


def test_dev_is_a_third_of_the_train_file_by_default_and_test_is_absent(make_task: TaskMaker) -> None:
    splits = load_splits(load_task(make_task(numbered(9))))
    assert questions(splits.train) == [f"q{n}" for n in range(6)]
    assert questions(splits.dev) == ["q6", "q7", "q8"]
    assert splits.test == splits.named("test") == ()


def test_dev_takes_the_rows_that_follow_trains_limit(make_task: TaskMaker) -> None:
    data = section(train={"path": "train.jsonl", "limit": 3}, dev={"from": "train", "limit": 2})
    splits = load_splits(load_task(make_task(numbered(9), data=data)))
    assert (questions(splits.train), questions(splits.dev)) == (["q0", "q1", "q2"], ["q3", "q4"])


def test_train_gives_up_rows_at_its_end_where_too_few_are_left(make_task: TaskMaker) -> None:
    data = section(
        train={"path": "train.jsonl", "limit": 8}, dev={"from": "train", "limit": 3}, test={"from": "train", "limit": 2}
    )
    splits = load_splits(load_task(make_task(numbered(9), data=data)))
    assert questions(splits.train) == ["q0", "q1", "q2", "q3"]
    assert sorted(questions(splits.dev) + questions(splits.test)) == ["q4", "q5", "q6", "q7", "q8"]


def test_examples_carry_their_id_answers_and_the_line_they_came_from(make_task: TaskMaker) -> None:
    rows = [{"id": 7, "question": "a", "label": "x"}, {"question": "b", "label": "y"}, {"question": "c", "label": "x"}]
    path = make_task(rows)
    splits = load_splits(load_task(path))
    assert splits.train[0] == Example("7", {"question": "a"}, ("x",), f"{path.parent}/train.jsonl:1")
    assert [example.id for example in splits.train + splits.dev] == ["7", "train-2", "dev-3"]


def test_ids_are_unique_within_a_split_whatever_the_rows_call_themselves(make_task: TaskMaker) -> None:
    names: list[str | int] = ["a@3", "a", "a", "train-5", 1, "1", "a"]
    rows = [{"id": name, "question": f"q{n}", "label": "x"} for n, name in enumerate(names)]
    rows.insert(4, {"question": "unnamed", "label": "x"})
    data = section(train={"path": "train.jsonl"}, dev={"from": "train", "limit": 1})
    ids = [example.id for example in load_splits(load_task(make_task(rows, data=data))).train]
    assert len(set(ids)) == len(ids) == 7
    assert ids[:2] == ["a@3", "a"]


def test_labels_come_from_the_whole_train_file_whatever_the_limits(make_task: TaskMaker) -> None:
    rows = [*numbered(6), {"question": "last", "label": "rare"}]
    data = section(train={"path": "train.jsonl", "limit": 1}, dev={"from": "train", "limit": 1})
    splits = load_splits(load_task(make_task(rows, data=data)))
    assert (len(splits.train), len(splits.dev)) == (1, 1)
    assert splits.labels == ("a", "b", "rare")


def test_a_row_that_stands_in_several_files_stays_where_it_judges_most(make_task: TaskMaker, tmp_path: Path) -> None:
    rows_file(tmp_path / "dev.jsonl", numbered(4, start=4))
    rows_file(tmp_path / "test.jsonl", numbered(2, start=6))
    data = section(dev={"path": "dev.jsonl"}, test={"path": "test.jsonl"})
    splits = load_splits(load_task(make_task(numbered(8), data=data)))
    assert questions(splits.train) == ["q0", "q1", "q2", "q3"]
    assert questions(splits.dev) == ["q4", "q5"]
    assert questions(splits.test) == ["q6", "q7"]


def test_a_split_of_its_own_file_keeps_its_limit_and_order(make_task: TaskMaker, tmp_path: Path) -> None:
    rows_file(tmp_path / "test.jsonl", numbered(5, start=100))
    data = section(test={"path": "test.jsonl", "limit": 2})
    assert questions(load_splits(load_task(make_task(numbered(6), data=data))).test) == ["q100", "q101"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (section(dev={"from": "train", "limit": 6}), "dev asks for 6 of 6 rows and would leave none for train"),
        (section(dev={"path": "train.jsonl"}), "dev is the same file as train; splits must not share rows"),
        (section(dev={"path": "./x/../train.jsonl"}), "dev is the same file as train; splits must not share rows"),
        (section(test={"path": "other.jsonl"}, dev={"path": "other.jsonl"}), "test is the same file as dev"),
        (section(dev={"path": "other.jsonl", "from": "train"}), "dev has both a path and from: keep one"),
        (section(train={"path": "train.jsonl", "from": "train"}), "train has both a path and from: keep one"),
        (section(dev={"limit": 3}), "dev needs a path or from: train"),
        (section(train={"limit": 3}), "train needs a path"),
        (section(test={"path": "empty.jsonl"}), "test is empty: empty.jsonl has no rows"),
        (section(train={"path": "empty.jsonl"}), "train is empty: empty.jsonl has no rows"),
        (section(train={"path": "copy.jsonl"}, test={"path": "train.jsonl"}), "train is empty: every row of it stands"),
    ],
)
def test_splits_that_cannot_be_are_refused_at_their_line(
    make_task: TaskMaker, tmp_path: Path, data: dict[str, Any], says: str
) -> None:
    rows_file(tmp_path / "other.jsonl", numbered(3, start=50))
    rows_file(tmp_path / "empty.jsonl", [])
    rows_file(tmp_path / "copy.jsonl", numbered(6))
    task = load_task(make_task(numbered(6), data=data))
    name = says.split()[0]
    assert complaint(task).startswith(f"task.yaml:{task.lines[('data', name)]}: {says}")


def test_rows_all_alike_leave_nothing_to_judge_on(make_task: TaskMaker) -> None:
    task = load_task(make_task([{"question": "same", "label": "a"}] * 5))
    assert complaint(task).endswith("dev is empty: every row of it stands in train too")


def test_a_single_row_cannot_be_split(make_task: TaskMaker) -> None:
    assert "would leave none for train" in complaint(load_task(make_task(numbered(1))))


def test_an_absent_rows_file_is_a_usage_error(make_task: TaskMaker) -> None:
    path = make_task(data=section(test={"path": "nowhere.jsonl"}))
    with pytest.raises(UsageError, match=r"nowhere\.jsonl: no such file"):
        load_splits(load_task(path))


@pytest.mark.parametrize("field", ["question", "label"])
def test_a_row_without_a_field_is_named_by_its_line(make_task: TaskMaker, field: str) -> None:
    rows = numbered(5)
    del rows[3][field]
    assert complaint(load_task(make_task(rows))).startswith(f"train.jsonl:4: no field {field!r} in this row")


@pytest.mark.parametrize(
    ("cell", "accepted"),
    [
        (["b", "c"], ("a", "b", "c")),
        (["b", "a", "b"], ("a", "b")),
        ('["b", 2]', ("a", "b", "2")),
        ([], ("a",)),
        ("", ("a",)),
        ("1.50", ("a", "1.50")),
        (1.5, ("a", "1.5")),
        ("[not json", ("a", "[not json")),
        ("[" * 100_000, ("a", "[" * 100_000)),
        (True, ("a", "true")),
    ],
)
def test_further_accepted_answers_follow_the_target_once_each(
    make_task: TaskMaker, cell: object, accepted: tuple[str, ...]
) -> None:
    rows = [{"question": "q0", "label": "a", "others": cell}, *numbered(3, start=1)]
    splits = load_splits(load_task(make_task(rows, data=section(accepted="others"))))
    assert splits.train[0].accepted == accepted
    assert splits.train[1].accepted == ("b",)


def test_without_a_target_every_row_needs_an_accepted_answer(make_task: TaskMaker) -> None:
    rows = [{"question": f"q{n}", "others": ["x"]} for n in range(4)] + [{"question": "q", "others": []}]
    task = load_task(make_task(rows, data=section(target=None, accepted="others")))
    assert complaint(task) == "train.jsonl:5: no accepted answer in this row"


LIMIT = st.none() | st.integers(1, 6)
SPLIT = st.none() | st.builds(lambda limit: {"from": "train"} | ({"limit": limit} if limit else {}), LIMIT)


@given(
    contents=st.lists(st.integers(0, 25), min_size=1, max_size=20),
    train_limit=LIMIT,
    dev=SPLIT,
    test=SPLIT,
    test_file=st.none() | st.lists(st.integers(0, 25), min_size=1, max_size=4),
)
def test_splits_are_disjoint_in_content_and_never_empty_whatever_the_limits(
    make_task: TaskMaker,
    tmp_path: Path,
    contents: list[int],
    train_limit: int | None,
    dev: dict[str, Any] | None,
    test: dict[str, Any] | None,
    test_file: list[int] | None,
) -> None:
    rows = [{"question": f"q{n}", "label": f"l{n % 4}"} for n in contents]
    train = {"path": "train.jsonl"} | ({"limit": train_limit} if train_limit else {})
    if test_file is not None:
        rows_file(tmp_path / "test.jsonl", [{"question": f"q{n}", "label": "x"} for n in test_file])
        test = {"path": "test.jsonl"}
    task = load_task(make_task(rows, data=section(train=train, dev=dev, test=test)))
    try:
        splits = load_splits(task)
    except ContentError:  # refused, which is one line; the cases above say when
        event("refused")
        return
    event("split")
    named = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    wanted = {"train", "dev"} | ({"test"} if test else set())
    assert {name for name, examples in named.items() if examples} == wanted
    seen = [set(questions(examples)) for examples in named.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert splits.labels == tuple(sorted({row["label"] for row in rows}))
    assert len(splits.train) <= (train_limit or len(rows))
    for name, asked in (("dev", dev), ("test", test)):
        assert len(named[name]) <= ((asked or {}).get("limit") or len(rows) + 4)
    in_order(splits, rows)


def in_order(splits: Splits, rows: Sequence[Mapping[str, str]]) -> None:
    """Train keeps the order of its file, and every example is a row of it."""
    lines = [int(example.origin.rpartition(":")[2]) for example in splits.train]
    assert lines == sorted(lines)
    assert [rows[line - 1]["question"] for line in lines] == questions(splits.train)
