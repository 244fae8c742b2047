"""localgrad diff: what a run changed, parameter by parameter."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from engine.cli import terminal
from engine.cli.options import Common, common_options
from engine.cli.runs import existing_store
from engine.errors import ContentError, UsageError
from engine.optim.run import BEST
from engine.program.graph import Program
from engine.program.parameters import Bias, Demos, Notes, Parameter, Text
from engine.program.saved import is_saved_program, load_saved
from engine.program.userlayers import load_layers
from engine.store.rows import RunRow
from engine.store.store import Store


@click.command("diff")
@click.argument("given", metavar="[RUN|TASK]", required=False)
@click.option("--task", "task_file", type=click.Path(path_type=Path), help="The task whose store holds the run.")
@common_options
def command(given: str | None, task_file: Path | None, common: Common) -> int:
    """Show what a run changed between baseline and best.

    RUN is a run's id, its folder or its saved program. With a TASK, or with nothing, it is the last finished run. With
    another of its saved programs, such as candidate-3.yaml, that one takes the place of the best.
    """
    name, task, store = _place(given, task_file, common.store)
    with existing_store(task, store) as opened:
        run = _find(opened, name, task)
        before, after = (_program(opened, run, which) for which in ("baseline", "best"))
    other = _other_program(given)
    after = other or after
    changes = {
        key: (before.parameters[key], value)
        for key, value in after.parameters.items()
        if value != before.parameters[key]
    }
    if common.as_json:
        which = Path(str(given)).stem if other else "best"
        body = {key: {"baseline": _plain(old), which: _plain(new)} for key, (old, new) in changes.items()}
        terminal.print_result({"run": run.id, "changes": body})
    elif not changes:
        terminal.say(f"{run.id}: nothing changed; the baseline was kept")
    else:
        terminal.say(f"{run.id}: {len(changes)} parameters changed")
        for key, (old, new) in changes.items():
            terminal.say()
            for line in _lines(key, old, new):
                terminal.say(line)
    return 0


def _place(given: str | None, task: Path | None, store: str | None) -> tuple[str | None, Path | None, str | None]:
    """The run's name if one was given, the task whose store to look in, and the store if one was named."""
    path = Path(given or "")
    if given is None or not path.exists():
        return given, task, store
    if path.is_file() and not is_saved_program(path):
        return None, path, store
    folder = (path if path.is_dir() else path.parent).resolve()
    if not (folder / BEST).is_file():
        raise UsageError(f"{path}: is not a run's folder; give one, a run's id or a task file")
    return folder.name, task, store or str(folder.parent.parent / "store.db")


def _other_program(given: str | None) -> Program | None:
    """The saved program that was given, unless it is the run's best."""
    path = Path(given or "")
    if not path.is_file() or path.name == BEST or not is_saved_program(path):
        return None
    return load_saved(path).program


def _find(store: Store, name: str | None, task: Path | None) -> RunRow:
    """The run of a name; without one the last finished run, of the task where one is given."""
    runs = store.runs()
    of_task = None if task is None else str(task.resolve())
    for run in runs:
        last = name is None and run.status == "done" and of_task in (None, run.task_path)
        if run.id == name or last:
            if not run.report:
                raise ContentError(f"run {run.id} is {run.status}; finish it first with --resume")
            return run
    if name is None:
        whose = f" of {terminal.nearby(task)}" if task else ""
        raise UsageError(f"{store.path}: no finished run{whose} yet; localgrad optimize TASK makes one")
    known = ", ".join(run.id for run in runs[:3]) or "none"
    raise UsageError(f"no run {name!r} in {store.path}; the newest: {known}")


def _program(store: Store, run: RunRow, which: str) -> Program:
    import engine.program.layers  # noqa: F401 (makes the layers known)

    mapping = store.program(run.report[which]["fingerprint"])
    if mapping is None:
        raise ContentError(f"{store.path}: the {which} program of {run.id} is not in this store")
    load_layers(run.settings.get("layers", []), Path(), f"run {run.id}")
    return Program.from_mapping(mapping)


def _plain(parameter: Parameter) -> Any:
    if isinstance(parameter, Demos):
        return [demo.to_mapping() for demo in parameter.value]
    if isinstance(parameter, Bias):
        return dict(zip(parameter.choices, parameter.value, strict=True)) if parameter.value else {}
    return parameter.value


def _lines(name: str, old: Parameter, new: Parameter) -> Iterator[str]:
    if isinstance(new, Demos) and isinstance(old, Demos):
        yield f"{name}: {len(old.value)} → {len(new.value)} demonstrations"
        for sign, demos in (
            ("-", [d for d in old.value if d not in new.value]),
            ("+", [d for d in new.value if d not in old.value]),
        ):
            for demo in demos:
                shown = " | ".join(" ".join(text.split()) for text in demo.inputs.values())
                yield f"  {sign} {shown[:90]} → {' | '.join(demo.outputs.values())[:40]}"
    elif isinstance(new, Bias) and isinstance(old, Bias):
        yield f"{name} (nats)"
        width = max(len(choice) for choice in new.choices)
        for choice, before, after in zip(new.choices, old.value or [0.0] * len(new.choices), new.value, strict=True):
            yield f"  {choice:<{width}}  {before:+7.2f} → {after:+7.2f}"
    elif isinstance(new, Notes) and isinstance(old, Notes):
        yield f"{name}: {len(old.value)} → {len(new.value)} notes"
        lines = difflib.ndiff([*map(_one_line, old.value)], [*map(_one_line, new.value)])
        yield from (f"  {line}" for line in lines if line[0] in "-+")
    elif isinstance(new, Text) and isinstance(old, Text):
        yield name
        lines = difflib.ndiff(_wrapped(old.value), _wrapped(new.value))
        yield from (f"  {line}" for line in lines if not line.startswith("?"))
    else:
        yield f"{name}: {_plain(old)} → {_plain(new)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wrapped(text: str) -> list[str]:
    """A text by sentences, so that a diff shows what changed in a long line."""
    return [line for line in text.replace(". ", ".\n").splitlines() if line.strip()]
