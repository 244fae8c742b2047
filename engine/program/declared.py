"""The program a task file declares: `choices: auto` and `demos: train` filled in, labels checked against the rows."""

from collections.abc import Mapping
from typing import Any

import engine.program.layers  # noqa: F401 (makes the layers known)
from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.library import architecture_nodes
from engine.program.parameters import Demo, Demos
from engine.program.pool import MOST_BYTES, MOST_ROWS, labelled
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
    pools = [name for name, spec in nodes.items() if _of_predict(spec) and spec.get("demos") == "train"]
    nodes |= {name: {key: nodes[name][key] for key in nodes[name] if key != "demos"} for name in pools}
    try:
        program = Program.from_mapping({**task.file.program, "nodes": nodes} if full else nodes)
    except ContentError as error:
        raise ContentError(f"{_where(task, error.path)}: {error}") from None
    for name in program.inputs:
        if name not in task.file.data.inputs:
            known = ", ".join(task.file.data.inputs)
            raise ContentError(f"{task.where(('program',))}: the program reads {name!r}, but data.inputs gives {known}")
    _check_labels(program, splits, task)
    for name in pools:
        try:
            program = program.replace({f"{name}.demos": _pool(program, name, splits, task)})
        except ContentError as error:
            raise ContentError(f"{_where(task, (*base, name, 'demos'))}: demos: train {error}") from None
    _check_pools(program, task, base)
    return program


def where_declared(task: Task, place: str) -> str:
    """`file:line` of a node or a parameter of the program (`node.parameter`), or of the nearest place around it.

    A place that is no node's is a key of the program itself, such as `inputs`.
    """
    nodes, path = _nodes(task), place.split(".")
    full = nodes is task.file.program.get("nodes") and path[0] in nodes
    return _where(task, ("nodes", *path) if full else tuple(path))


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


def _where(task: Task, path: tuple[str | int, ...]) -> str:
    """`file:line` of a place in the program; of a stock architecture's setting where the node is not in the file."""
    if path and isinstance(task.file.program.get("architecture"), str) and path[-1] in task.file.program:
        return task.where(("program", path[-1]))
    return task.where(("program", *path))


def _with_labels(spec: Any, splits: Splits, task: Task, path: tuple[str, ...]) -> Any:
    """A node, or a part of one, with `choices: auto` written out wherever it stands."""
    if not isinstance(spec, Mapping):
        return spec
    filled = {
        key: _with_labels(value, splits, task, (*path, key)) if isinstance(value, Mapping) else value
        for key, value in spec.items()
    }
    if "layer" not in spec or spec.get("choices") != "auto":
        return filled
    if len(splits.labels) < 2:
        raise ContentError(
            f"{_where(task, (*path, 'choices'))}: choices: auto found {len(splits.labels)} labels in train; "
            "it needs data.target and at least two"
        )
    if any(not label.strip() for label in splits.labels):
        rows = (*splits.train, *splits.dev, *splits.test)
        place = next((row.origin for row in rows if row.target is not None and not row.target.strip()), "train")
        raise ContentError(f"{place}: {task.file.data.target!r} is blank here, and choices: auto would make it a label")
    return {**filled, "choices": list(splits.labels)}


def _of_predict(spec: Any) -> bool:
    return isinstance(spec, Mapping) and spec.get("layer") == "predict"


def _pool(program: Program, name: str, splits: Splits, task: Task) -> list[Demo]:
    """Every train row with a target that can be a demo of a node.

    Raises:
        ContentError: there is none, or the node cannot have such demos.
    """
    node = program.node(name)
    parameter = node.parameters()["demos"]
    assert isinstance(parameter, Demos)  # of a Predict
    within = next((reference for reference in node.sources.values() if "." in reference), None)
    if within:
        raise ContentError(f"is for nodes that read program inputs alone; {name!r} reads {within}")
    if len(node.layer.outputs) != 1:
        raise ContentError(f"is for nodes with one output; {name!r} has {', '.join(node.layer.outputs)}")
    if not parameter.nearest:
        raise ContentError("needs nearest: K, how many of the rows a prompt shows")
    if not task.file.data.target and not task.file.data.accepted:
        raise ContentError("needs data.target, the answers that the rows give")
    demos = [demo for example in splits.train if (demo := labelled(node, example))]
    size = sum(len(text.encode()) for demo in demos for text in (*demo.inputs.values(), *demo.outputs.values()))
    if len(demos) > MOST_ROWS or size > MOST_BYTES:
        raise ContentError(
            f"found {len(demos):,} rows of {size:,} bytes; a pool, which is saved with its program, holds "
            f"at most {MOST_ROWS:,} of {MOST_BYTES:,}: give data.train a limit"
        )
    if not demos:
        raise ContentError(f"found no answer in {len(splits.train)} rows that {name!r} could give")
    return demos


def _check_pools(program: Program, task: Task, base: tuple[str, ...]) -> None:
    """See that no pool is empty."""
    for node in program.nodes:
        parameter = node.parameters().get("demos")
        if isinstance(parameter, Demos) and parameter.nearest and not parameter.value:
            place = _where(task, (*base, node.name, "nearest"))
            raise ContentError(f"{place}: nearest: {parameter.nearest} of no demos; write demos: train, or list some")


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
