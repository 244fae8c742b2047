"""From the `data` section of a task to train, dev and test examples that never share a row.

Train feeds the proposals, dev decides, test is scored once. A split that says `from: train` takes rows of the train
file that train leaves over; where there are too few it is carved out of the end of train. A row whose inputs stand in
several files stays in the split that judges most: test before dev before train.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.errors import ContentError, UsageError
from engine.records import Example
from engine.tasks.rows import Row, read_rows
from engine.tasks.schema import Data, Split, Task

SplitName = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples of a task. `labels` are the targets of the whole train file, whatever the limits, sorted."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]

    def named(self, name: SplitName) -> tuple[Example, ...]:
        """One split by its name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def load_splits(task: Task) -> Splits:
    """Read every split of a task.

    Raises:
        UsageError: a file is absent.
        ContentError: a row is bad (file:line), a split is empty, or two splits are the same file.
    """
    data = task.file.data
    _refuse_shared_files({"train": data.train, "dev": data.dev, "test": data.test}, task)
    train_rows = _read(data.train, "train", task)
    labels = sorted({row.text(data.target) for row in train_rows}) if data.target else []
    taken: dict[str, list[Row]] = {}
    judged: set[tuple[str, ...]] = set()
    for name, split in (("test", data.test), ("dev", data.dev)):
        if split is not None and not split.source:
            taken[name] = _unjudged(_read(split, name, task)[: split.limit], judged, name, task)
            judged |= {_content(row, data) for row in taken[name]}
    train, carved = _carve(_unjudged(train_rows, judged, "train", task), data, task)
    taken |= {"train": train, **carved}
    train_examples, dev, test = (_examples(taken.get(name, []), data, name) for name in ("train", "dev", "test"))
    return Splits(train_examples, dev, test, tuple(labels))


def example_of(row: Row, data: Data, name: str = "row") -> Example:
    """One row as an example: program inputs by name, accepted answers with the target first.

    Raises:
        ContentError: a field is absent or of the wrong kind.
    """
    inputs = {program_input: row.text(field) for program_input, field in data.inputs.items()}
    accepted = [row.text(data.target)] if data.target else []
    if data.accepted and data.accepted in row.values:
        accepted += _answers(row, data.accepted)
    if not accepted and (data.target or data.accepted):
        raise ContentError(f"{row.origin}: no accepted answer in this row")
    identity = row.values.get("id")
    return Example(
        id=str(identity) if isinstance(identity, str | int) else f"{name}-{row.line}",
        inputs=inputs,
        accepted=tuple(dict.fromkeys(accepted)),
        origin=row.origin,
    )


def _answers(row: Row, field: str) -> list[str]:
    """The answers in a field: a list, in a table written as JSON, or else the one text, or none where it is blank."""
    text = row.text(field)
    if not text.strip():
        return []
    try:
        answers = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        answers = None
    if not isinstance(answers, list):
        return [text]
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in answers]


def _examples(rows: Sequence[Row], data: Data, name: str) -> tuple[Example, ...]:
    """Examples with ids that are unique within the split: a repeated id gets its line number."""
    examples: list[Example] = []
    seen: set[str] = set()
    for row in rows:
        example = example_of(row, data, name)
        while example.id in seen:
            example = replace(example, id=f"{example.id}@{row.line}")
        seen.add(example.id)
        examples.append(example)
    return tuple(examples)


def _carve(rows: list[Row], data: Data, task: Task) -> tuple[list[Row], dict[str, list[Row]]]:
    """Split the train file's rows into train and what `from: train` asks for.

    A row whose inputs also stand in train is passed over, so that no example is both learned from and judged on.
    """
    limit = data.train.limit or len(rows)
    train, spare = rows[:limit], rows[limit:]
    carved: dict[str, list[Row]] = {}
    for name in ("dev", "test"):
        split: Split | None = getattr(data, name)
        if split is None or split.source is None:
            continue
        count = split.limit or max(1, len(rows) // 3)
        if len(spare) < count and data.train.limit is None:
            count = min(count, max(1, len(train) // 2)) if split.limit is None else count
        missing = max(0, count - len(spare))
        if missing >= len(train):
            raise ContentError(
                f"{task.where(('data', name))}: {name} asks for {count} of {len(rows)} rows and would leave none "
                "for train: lower its limit or give it a path"
            )
        train, spare = train[: len(train) - missing], train[len(train) - missing :] + spare
        carved[name], spare = spare[:count], spare[count:]
    known = {_content(row, data) for row in train}
    for name, chosen in carved.items():
        fresh = [row for row in chosen if _content(row, data) not in known]
        while len(fresh) < len(chosen) and spare:
            row, spare = spare[0], spare[1:]
            if _content(row, data) not in known:
                fresh.append(row)
        if not fresh:
            raise ContentError(f"{task.where(('data', name))}: {name} is empty: every row of it stands in train too")
        carved[name] = fresh
        known |= {_content(row, data) for row in fresh}
    return train, carved


def _read(split: Split, name: str, task: Task) -> list[Row]:
    try:
        rows = read_rows(_path_of(split, name, task))
    except UsageError as error:
        raise UsageError(f"{task.where(('data', name, 'path'))}: {error}") from None
    if not rows:
        raise ContentError(f"{task.where(('data', name))}: {name} is empty: {split.path} has no rows")
    return rows


def _unjudged(rows: list[Row], judged: set[tuple[str, ...]], name: str, task: Task) -> list[Row]:
    """The rows whose inputs do not stand in a split that judges more."""
    fresh = [row for row in rows if _content(row, task.file.data) not in judged]
    if not fresh:
        raise ContentError(
            f"{task.where(('data', name))}: {name} is empty: every row of it stands in another split too"
        )
    return fresh


def _content(row: Row, data: Data) -> tuple[str, ...]:
    return tuple(row.text(field) for field in data.inputs.values())


def _path_of(split: Split, name: str, task: Task) -> Path:
    if split.path is None:
        raise ContentError(
            f"{task.where(('data', name))}: {name} needs a path" + (" or from: train" if name != "train" else "")
        )
    return task.folder / split.path


def _refuse_shared_files(splits: dict[str, Split | None], task: Task) -> None:
    taken: dict[Path, str] = {}
    for name, split in splits.items():
        if split is not None and split.path and split.source:
            raise ContentError(f"{task.where(('data', name))}: {name} has both a path and from: keep one")
        if split is None or (split.source and name != "train"):
            continue
        path = _path_of(split, name, task).resolve()
        if path in taken:
            raise ContentError(
                f"{task.where(('data', name))}: {name} is the same file as {taken[path]}; splits must not share rows: "
                "write {from: train, limit: N} instead of a path"
            )
        taken[path] = name
