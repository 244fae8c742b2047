"""localgrad trace: look at single executions, as the store remembers them."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from engine.cli import terminal
from engine.cli.execution import Branch, Layout
from engine.cli.options import Common, common_options
from engine.cli.runs import existing_store
from engine.errors import UsageError
from engine.program.layer import calls_of
from engine.records import Call
from engine.store.store import Store
from engine.store.traces import TraceRow

_ID = 10  # characters of a trace's name that are shown; more than are needed to tell a million apart


@click.group("trace")
def command() -> None:
    """Look at single executions: what every node read, asked for and gave."""


@command.command("list")
@click.argument("task_file", metavar="[TASK]", required=False, type=click.Path(path_type=Path))
@click.option("--run", "run", default="", help="Only of the runs whose name begins like this.")
@click.option("--program", "program", default="", help="Only of the programs whose fingerprint begins like this.")
@click.option("--failed", is_flag=True, help="Only executions that failed.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@common_options
def list_command(
    task_file: Path | None, run: str, program: str, failed: bool, limit: int, common: Common
) -> int:  # fmt: skip
    """List executions in the store of TASK, or in the nearest store at or above this folder, newest first."""
    with existing_store(task_file, common.store) as opened:
        where = opened.path
        rows = opened.traces(run, program, failed, limit)
    if common.as_json:
        terminal.print_result({"traces": [_short(row) for row in rows]})
    elif not rows:
        wanted = bool(run or program or failed)
        hint = "none of these" if wanted else "no executions yet; localgrad eval TASK leaves some"
        terminal.say(f"{terminal.nearby(where)}: {hint}")
    else:
        width = terminal.out().width
        columns = ("id", "written", "run", "example", "score", "answer")
        terminal.listing(columns, [_cells(row) for row in rows], {2: width // 5, 3: width // 8})
    return 0


@command.command("show")
@click.argument("id", metavar="ID")
@click.option("--task", "task_file", type=click.Path(path_type=Path), help="The task whose store holds it.")
@click.option("--full", is_flag=True, help="Cut no text, and show every setting.")
@click.option("--prompts", is_flag=True, help="Show the prompt of every call.")
@common_options
def show_command(id: str, task_file: Path | None, full: bool, prompts: bool, common: Common) -> int:
    """Show one execution. ID is its name or the beginning of it."""
    with existing_store(task_file, common.store) as opened:
        row = _found(opened, id)
        calls = dict(_calls(opened, row))
    if common.as_json:
        terminal.print_result(_whole(row, calls))
        return 0
    tree = Layout(calls, full, prompts).tree(row)
    terminal.out().print(_drawn(tree, Tree(_label(tree), guide_style="dim")))
    return 0


def _found(store: Store, given: str) -> TraceRow:
    """The one trace whose name begins as given.

    Raises:
        UsageError: there is none, or several.
    """
    names = store.trace_ids(given.lower())
    if len(names) > 1:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UsageError(f"{len(names):,} traces begin with {given!r}: {shown}; give more of the name")
    row = store.trace(names[0]) if names else None
    if row is None:
        raise UsageError(f"{terminal.nearby(store.path)}: no trace {given!r}; localgrad trace list shows the last ones")
    return row


def _calls(store: Store, row: TraceRow) -> Iterator[tuple[str, Call]]:
    """Every call of a trace that the store knows, by its key."""
    for key in dict.fromkeys(key for step in row.trace.steps for key in calls_of(step)):
        call = store.call(key)
        if call is not None:
            yield key, call


def _short(row: TraceRow) -> dict[str, Any]:
    trace = row.trace
    return {
        "id": row.id,
        "created": row.created,
        "run": row.run,
        "program": trace.program,
        "example": trace.example.id,
        "score": _score(row),
        "answer": trace.prediction.text,
        "error": trace.prediction.error,
    }


def _cells(row: TraceRow) -> list[str]:
    score, prediction = _score(row), row.trace.prediction
    answer = f"failed: {prediction.error}" if prediction.error else " ".join(prediction.text.split())
    shown = "-" if score is None else f"{score:.3g}"
    return [row.id[:_ID], terminal.local_time(row.created)[5:], row.run, row.trace.example.id, shown, answer]


def _score(row: TraceRow) -> float | None:
    """The score; None where none was asked for."""
    return row.trace.score if row.trace.score == row.trace.score else None


def _whole(row: TraceRow, calls: dict[str, Call]) -> dict[str, Any]:
    """Everything that is known of an execution as plain data; steps name their calls by key."""
    body = {**asdict(row.trace), "score": _score(row)}
    return {"id": row.id, "created": row.created, "run": row.run, **body, "calls": list(map(asdict, calls.values()))}


def _label(branch: Branch) -> Text:
    label = Text(terminal.printable(branch.label), style="bold" if branch.heavy else "dim", overflow="fold")
    text = terminal.printable(branch.text)
    between = "" if not text else ":\n" if "\n" in text else ": "
    return Text.assemble(label, between, text, overflow="fold")


def _drawn(branch: Branch, tree: Tree) -> Tree:
    for inner in branch.branches:
        _drawn(inner, tree.add(_label(inner)))
    return tree
