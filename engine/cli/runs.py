"""localgrad runs: the optimization runs of a project."""

from dataclasses import replace
from pathlib import Path

import click

from engine.cli import terminal
from engine.cli.options import Common, common_options
from engine.cli.session import store_path, task_name
from engine.errors import UsageError
from engine.store.locks import is_live
from engine.store.rows import RunRow
from engine.store.store import Store


@click.command("runs")
@click.argument("task_file", metavar="[TASK]", required=False, type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help="With TASK, also the runs of other tasks in its store.")
@common_options
def command(task_file: Path | None, every: bool, common: Common) -> int:
    """List the runs of TASK, or all in the nearest store at or above this folder, newest first."""
    with existing_store(task_file, common.store) as opened:
        where = opened.path
        name = wanted_task(task_file, every)
        runs = [_seen_now(run, where) for run in opened.runs(name)]
    if common.as_json:
        terminal.print_result({"runs": [_body(run) for run in runs]})
    elif not runs:
        whose = f" of task {name} (--all lists those of others)" if name else ""
        terminal.say(f"{terminal.nearby(where)}: no runs yet{whose}; localgrad optimize TASK makes one")
    else:
        terminal.table(
            ["run", "started", "status", "dev %", "test %", "accepted", "spent"],
            [_cells(run) for run in runs],
            numbers=(3, 4, 5, 6),
            spare=(1, 5, 6, 4, 3),
        )
    return 0


def wanted_task(task_file: Path | None, every: bool) -> str:
    """The name of the task that is asked for; empty where everything is."""
    return task_name(task_file) if task_file and not every else ""


def existing_store(task_file: Path | None, store: str | None) -> Store:
    """The store of a task, or the nearest one at or above the current folder.

    Raises:
        UsageError: there is none.
    """
    beside = task_file or Path.cwd() / "task.yaml"
    path = store_path(beside, store)
    if task_file is None and store is None:
        above = (folder / ".localgrad" / "store.db" for folder in (Path.cwd(), *Path.cwd().parents))
        path = next((place for place in above if place.is_file()), path)
    if not path.is_file():
        raise UsageError(f"{path}: no store here yet; name a TASK or --store, or optimize one first")
    return Store(path)


def _seen_now(run: RunRow, store: Path) -> RunRow:
    """A run that was killed could not say so itself: it is interrupted, and `--resume` goes on with it."""
    if run.status == "running" and not is_live(store.parent / "runs", run.id):
        return replace(run, status="interrupted")
    return run


def _body(run: RunRow) -> dict[str, object]:
    return {
        "run": run.id,
        "task": run.task,
        "seed": run.seed,
        "started": run.started,
        "status": run.status,
        "seconds": run.seconds,
        "settings": dict(run.settings),
        "report": dict(run.report),
    }


def _cells(run: RunRow) -> list[str]:
    report = run.report
    cells = [run.id, terminal.local_time(run.started), run.status]
    for split in ("dev", "test"):
        scores = [report[name][split] for name in ("baseline", "best")] if report else []
        known = [f"{100 * score:.1f}" for score in scores if score is not None]
        cells.append(" → ".join(known) or "-")
    return [*cells, str(report.get("accepted", "-")), terminal.duration(run.seconds)]
