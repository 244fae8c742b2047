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
from engine.program.graph import Program
from engine.program.parameters import Bias, Demos, Parameter, Text
from engine.store.rows import RunRow
from engine.store.store import Store


@click.command("diff")
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option("--task", "task_file", type=click.Path(path_type=Path), help="The task whose store holds the run.")
@common_options
def command(run_name: str | None, task_file: Path | None, common: Common) -> int:
    """Show what RUN (its id or its folder; by default the last finished one) changed between baseline and best."""
    name, store = run_name, common.store
    if run_name and Path(run_name).exists():
        folder = (Path(run_name) if Path(run_name).is_dir() else Path(run_name).parent).resolve()
        name, store = folder.name, store or str(folder.parent.parent / "store.db")
    with existing_store(task_file, store) as opened:
        run = _find(opened, name)
        before, after = (_program(opened, run, which) for which in ("baseline", "best"))
    changes = {
        key: (before.parameters[key], value)
        for key, value in after.parameters.items()
        if value != before.parameters[key]
    }
    if common.as_json:
        body = {key: {"baseline": _plain(old), "best": _plain(new)} for key, (old, new) in changes.items()}
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


def _find(store: Store, name: str | None) -> RunRow:
    runs = store.runs()
    for run in runs:
        if run.id == name or (name is None and run.status == "done"):
            if not run.report:
                raise ContentError(f"run {run.id} is {run.status}; finish it first with --resume")
            return run
    known = ", ".join(run.id for run in runs[:3]) or "none"
    raise UsageError(
        f"no run {name!r} in {store.path}; the newest: {known}" if name else f"no finished run in {store.path}"
    )


def _program(store: Store, run: RunRow, which: str) -> Program:
    import engine.program.layers  # noqa: F401 (makes the layers known)

    mapping = store.program(run.report[which]["fingerprint"])
    if mapping is None:
        raise ContentError(f"{store.path}: the {which} program of {run.id} is not in this store")
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
    elif isinstance(new, Text) and isinstance(old, Text):
        yield name
        lines = difflib.ndiff(_wrapped(old.value), _wrapped(new.value))
        yield from (f"  {line}" for line in lines if not line.startswith("?"))
    else:
        yield f"{name}: {_plain(old)} → {_plain(new)}"


def _wrapped(text: str) -> list[str]:
    """A text by sentences, so that a diff shows what changed in a long line."""
    return [line for line in text.replace(". ", ".\n").splitlines() if line.strip()]
