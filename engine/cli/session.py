"""What the commands that run a model have in common: a task read, a model opened, a store found."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.cli import terminal
from engine.errors import ModelError
from engine.feedback.static.analysis import findings
from engine.feedback.static.context import Limits
from engine.feedback.static.subject import Subject
from engine.inference.runtime import Runtime
from engine.opening import check_outside, open_runtime
from engine.program.declared import declared_program
from engine.program.graph import Program
from engine.program.saved import SavedProgram, is_saved_program, load_saved
from engine.program.userlayers import load_layers
from engine.tasks.metrics import Metric, load_metric
from engine.tasks.schema import RuntimeSettings, Task
from engine.tasks.splits import Splits, load_splits
from engine.tasks.taskfile import load_task

STATE_FOLDER = ".localgrad"


@dataclass(frozen=True, slots=True)
class Work:
    """A task, read and checked."""

    task: Task
    splits: Splits
    program: Program
    metric: Metric


def read_work(task: Task) -> Work:
    """Rows, program and metric of a task, all checked before any model is loaded."""
    splits = load_splits(task)
    return Work(task, splits, declared_program(task, splits), load_metric(task))


def task_name(path: Path) -> str:
    """The name of the task in a file, or of the task that a saved program is of: what its runs and traces go by."""
    return load_saved(path).name if is_saved_program(path) else load_task(path).file.name


def know_layers(path: Path) -> None:
    """Make the user's own layers known that a task or a saved program names. They run as the user's own code."""
    if is_saved_program(path):
        load_saved(path)
    else:
        task = load_task(path)
        load_layers(task.file.layers, task.folder, task.where(("layers",)))


def tell_findings(work: Work, program: Program) -> None:
    """Say in one line, on stderr, that `localgrad check` would find something; tokens are not counted for that."""
    subject = Subject(program, work.splits.train, work.splits.dev, work.metric)
    counts = Counter(finding.severity for finding in findings(subject, Limits()))
    found = [terminal.counted(counts[name], name) for name in ("error", "warning") if counts[name]]
    if found:
        terminal.complain(f"{', '.join(found)}: {terminal.own_name()} check {work.task.path}")


def state_folder(beside: Path, store: str | None) -> Path:
    """Where a project keeps its store and runs: beside `--store`, else the nearest .localgrad at or above the file."""
    if store:
        return Path(store).parent
    here = beside.resolve().parent
    for folder in (here, *here.parents):
        if folder.name == STATE_FOLDER:
            return folder
    return here / STATE_FOLDER


def store_path(beside: Path, store: str | None) -> Path:
    """The store file that goes with a task or program file."""
    return Path(store) if store else state_folder(beside, store) / "store.db"


@contextmanager
def task_runtime(task: Task, program: Program, store: str | None) -> Iterator[Runtime]:
    """The runtime a task asks for; what the program needs beside its model is looked for first."""
    check_outside(program, task.folder, lambda name: where_named(task, name))
    with model_runtime(task, store) as runtime:
        yield runtime


@contextmanager
def model_runtime(task: Task, store: str | None) -> Iterator[Runtime]:
    """The runtime a task asks for, whatever its program needs."""
    settings = task.file.optimize
    path = store_path(task.path, store)
    with open_runtime(
        task.file.model,
        optimizer_model=settings.optimizer_model,
        store=path,
        folder=task.folder,
        settings=task.file.runtime,
    ) as runtime:
        yield runtime
        _tell_notes(runtime)


@contextmanager
def saved_runtime(
    saved: SavedProgram, path: Path, store: str | None, settings: RuntimeSettings | None = None
) -> Iterator[Runtime]:
    """The runtime a saved program asks for.

    Raises:
        ModelError: the model's file is not the one the program was made for.
    """
    check_outside(saved.program, saved.folder, lambda name: f"{path}: looking in its folder, {saved.folder}")
    with open_runtime(saved.model, store=store_path(path, store), folder=saved.folder, settings=settings) as runtime:
        check_model(saved, runtime, path)
        yield runtime
        _tell_notes(runtime)


def where_named(task: Task, name: str) -> str:
    """`file:line` of the place in the program that names something outside of it."""
    return task.where(_place(name, task.file.program, ("program",)))


def _place(name: str, value: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where in a mapping a name stands as a value; the mapping itself where it stands nowhere."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if inner == name:
            return (*path, key)
        found = _place(name, inner, (*path, key))
        if found != (*path, key):
            return found
    return path


def check_model(saved: SavedProgram, runtime: Runtime, path: Path) -> None:
    """See that a saved program meets the model it was made for."""
    actual = runtime.backend("task").sha256
    if saved.model_sha256 != actual:
        raise ModelError(
            f"{path}: made for model {saved.model!r} with sha256 {saved.model_sha256[:12]}…, "
            f"this one has {actual[:12]}…: "
            "optimize again, or edit the hash if you mean it"
        )


def with_model(task: Task, model: str | None) -> Task:
    """The task with another model, where one is given."""
    return replace(task, file=replace(task.file, model=model)) if model else task


def with_runtime(task: Task, flags: Mapping[str, Any]) -> Task:
    """The task with settings of its `runtime` section replaced by flags."""
    return replace(task, file=replace(task.file, runtime=replace(task.file.runtime, **flags)))


def _tell_notes(runtime: Runtime) -> None:
    """Say once, on stderr, what a person should know about how the models answered."""
    for note in dict.fromkeys((*runtime.backend("task").notes, *runtime.backend("optimizer").notes)):
        terminal.complain(note)
