"""localgrad trace: look at single executions, as the store remembers them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from engine.cli import terminal
from engine.cli.diagnoses import Failures, failures_in, remarks_on
from engine.cli.execution import Branch, Layout
from engine.cli.options import Common, common_options
from engine.cli.runs import existing_store, wanted_task
from engine.cli.session import know_layers
from engine.errors import UsageError
from engine.feedback.failures import Cluster
from engine.program.event import one_line
from engine.program.layer import calls_of
from engine.records import Call, Remark
from engine.store.store import Store
from engine.store.traces import TraceRow

_ID = 10  # characters of a trace's name that are shown; more than are needed to tell a million apart
_EXAMPLES, _EXAMPLE = 12, 14  # how many ids of examples stand in a line, and characters of each


@click.group("trace")
def command() -> None:
    """Look at single executions: what every node read, asked for and gave."""


@command.command("list")
@click.argument("task_file", metavar="[TASK]", required=False, type=click.Path(path_type=Path))
@click.option("--run", "run", default="", help="Only of the runs whose name begins like this.")
@click.option("--program", "program", default="", help="Only of the programs whose fingerprint begins like this.")
@click.option("--failed", is_flag=True, help="Only executions that failed.")
@click.option("--failures", is_flag=True, help="What went wrong, how often and where, in place of executions.")
@click.option("--all", "every", is_flag=True, help="With TASK, also the executions of other tasks in its store.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@common_options
def list_command(
    task_file: Path | None, run: str, program: str, failed: bool, failures: bool, every: bool, limit: int,
    common: Common,
) -> int:  # fmt: skip
    """List executions of TASK, or all in the nearest store at or above this folder, newest first.

    With --failures, those that failed or scored less than 1 are put together where they went wrong alike.
    """
    with existing_store(task_file, common.store) as opened:
        where = opened.path
        task = wanted_task(task_file, every)
        if failures and task_file:
            know_layers(task_file)
        rows = opened.traces(run, program, failed, 1 if failures else limit, task=task)
        found = failures_in(opened, opened.traces(run, program, failed, task=task, below=1.0)) if failures else None
    if not rows and not common.as_json:
        terminal.say(f"{terminal.nearby(where)}: {_why_none(bool(run or program or failed), task)}")
    elif found:
        _show_failures(found, limit, common.as_json)
    elif common.as_json:
        terminal.print_result({"traces": [_short(row) for row in rows]})
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
    """Show one execution, with what feedback said about it. ID is its name or the beginning of it."""
    with existing_store(task_file, common.store) as opened:
        row = _found(opened, id)
        calls = dict(_calls(opened, row))
        remarks = remarks_on(opened, row)
    if common.as_json:
        terminal.print_result(_whole(row, calls, remarks))
        return 0
    tree = Layout(calls, full, prompts, remarks).tree(row)
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


def _why_none(filtered: bool, task: str) -> str:
    """Why there is nothing to list."""
    if filtered:
        return "none of these"
    whose = f" of task {task} (--all lists those of others)" if task else ""
    return f"no executions yet{whose}; localgrad eval TASK leaves some"


def _show_failures(found: Failures, limit: int, as_json: bool) -> None:
    """Clusters of failures, each with how often, and which execution of it to look at."""
    shown = found.clusters[:limit]
    if as_json:
        clusters = [_cluster(cluster, found.ids) for cluster in shown]
        terminal.print_result({"failed": found.count, "unknown": found.unknown, "failures": clusters})
        return
    if found.unknown:
        terminal.complain(
            f"{terminal.counted(found.unknown, 'failed execution')} left out: the program is not in this store, "
            "or has layers that only its TASK knows"
        )
    if not found.clusters:
        terminal.say("none of these executions is known to have failed")
        return
    width = terminal.out().width
    columns = ("count", "node", "kind", "look at", "examples")
    terminal.listing(columns, [_row(cluster, found.ids) for cluster in shown], {1: width // 4, 2: 2 * width // 5})
    if len(found.clusters) > limit:
        terminal.say(f"{terminal.counted(len(found.clusters) - limit, 'more kind')} of failure; --limit shows them")


def _row(cluster: Cluster, ids: Mapping[int, str]) -> list[str]:
    kind = ": ".join(filter(None, (cluster.kind, cluster.label)))
    examples = [one_line(example, _EXAMPLE) for example in cluster.examples[:_EXAMPLES]]
    return [str(cluster.count), cluster.node, kind, ids[id(cluster.traces[0])][:_ID], " ".join(examples)]


def _cluster(cluster: Cluster, ids: Mapping[int, str]) -> dict[str, Any]:
    return {
        "node": cluster.node,
        "kind": cluster.kind,
        "label": cluster.label,
        "count": cluster.count,
        "description": cluster.description,
        "examples": list(cluster.examples),
        "traces": [ids[id(trace)] for trace in cluster.traces],
    }


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


def _whole(row: TraceRow, calls: dict[str, Call], remarks: Sequence[Remark]) -> dict[str, Any]:
    """Everything that is known of an execution as plain data; steps name their calls by key."""
    body = {**asdict(row.trace), "score": _score(row)}
    said = [
        {"node": remark.node, "kind": remark.kind, "text": remark.text, "value": remark.value} for remark in remarks
    ]
    known = {"calls": list(map(asdict, calls.values())), "remarks": said}
    return {"id": row.id, "created": row.created, "run": row.run, **body, **known}


def _label(branch: Branch) -> Text:
    label = Text(terminal.printable(branch.label), style="bold" if branch.heavy else "dim", overflow="fold")
    text = terminal.printable(branch.text)
    between = "" if not text else ":\n" if "\n" in text else ": "
    return Text.assemble(label, between, text, overflow="fold")


def _drawn(branch: Branch, tree: Tree) -> Tree:
    for inner in branch.branches:
        _drawn(inner, tree.add(_label(inner)))
    return tree
