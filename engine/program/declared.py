"""The program a task file declares, with `choices: auto` filled in and its labels checked against the rows."""

from collections.abc import Mapping
from typing import Any

import engine.program.layers  # noqa: F401 (makes the layers known)
from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.library import architecture_nodes
from engine.program.userlayers import load_layers
from engine.tasks.schema import Task
from engine.tasks.splits import Splits


def declared_program(task: Task, splits: Splits) -> Program:
    """Read the `program` section of a task.

    Raises:
        ContentError: file:line and what is wrong with the program, its inputs or its labels.
    """
    load_layers(task.file.layers, task.folder, task.where(("layers",)))
    declared = _nodes(task)
    full = declared is task.file.program.get("nodes")
    base = ("nodes",) if full else ()
    nodes = {name: _with_labels(spec, splits, task, (*base, name)) for name, spec in declared.items()}
    try:
        program = Program.from_mapping({**task.file.program, "nodes": nodes} if full else nodes)
    except ContentError as error:
        raise ContentError(f"{task.where(('program', *error.path))}: {error}") from None
    for name in program.inputs:
        if name not in task.file.data.inputs:
            known = ", ".join(task.file.data.inputs)
            raise ContentError(f"{task.where(('program',))}: the program reads {name!r}, but data.inputs gives {known}")
    _check_labels(program, splits, task)
    return program


def _nodes(task: Task) -> Mapping[str, Any]:
    declared = task.file.program
    if isinstance(declared.get("architecture"), str):
        return _stock(task, declared)
    inner = declared.get("nodes")
    return inner if isinstance(inner, Mapping) and "layer" not in inner else declared


def _stock(task: Task, declared: Mapping[str, Any]) -> Mapping[str, Any]:
    """The nodes of the architecture that the task names. Its inputs are the task's where it lists none."""
    settings = {key: value for key, value in declared.items() if key not in ("architecture", "inputs")}
    inputs = tuple(declared.get("inputs", task.file.data.inputs))
    try:
        return architecture_nodes(declared["architecture"], inputs, settings)
    except ContentError as error:
        raise ContentError(f"{task.where(('program', *error.path))}: {error}") from None


def _with_labels(spec: Any, splits: Splits, task: Task, path: tuple[str, ...]) -> Any:
    if not isinstance(spec, Mapping) or spec.get("choices") != "auto":
        return spec
    if len(splits.labels) < 2:
        raise ContentError(
            f"{task.where(('program', *path, 'choices'))}: choices: auto found {len(splits.labels)} labels in train; "
            "it needs data.target and at least two"
        )
    if any(not label.strip() for label in splits.labels):
        rows = (*splits.train, *splits.dev, *splits.test)
        place = next((row.origin for row in rows if row.target is not None and not row.target.strip()), "train")
        raise ContentError(f"{place}: {task.file.data.target!r} is blank here, and choices: auto would make it a label")
    return {**spec, "choices": list(splits.labels)}


def _check_labels(program: Program, splits: Splits, task: Task) -> None:
    """With an explicit list of choices every row's target must be one of them."""
    node = program.output_node
    spec = _nodes(task).get(node.name, {})
    listed = spec.get("choices") if isinstance(spec, Mapping) else None
    if not isinstance(listed, list):
        return
    for example in (*splits.train, *splits.dev, *splits.test):
        if example.accepted and not set(example.accepted) & set(listed):
            raise ContentError(f"{example.origin}: label {example.target!r} is not in choices: {', '.join(listed)}")
