"""localgrad optimize: make a task's program better within a budget, and prove it on rows it has never seen."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from engine.cli import terminal
from engine.cli.interruption import exit_code
from engine.cli.options import Common, runtime_options
from engine.cli.progress import OptimizationProgress
from engine.cli.session import (
    read_work,
    state_folder,
    store_path,
    task_runtime,
    tell_findings,
    with_model,
    with_runtime,
)
from engine.errors import ContentError, ModelError, UsageError
from engine.feedback.declared import declared_objective
from engine.inference.runtime import Runtime
from engine.optim.acceptance import fewest_examples
from engine.optim.proposers import ALL, make_proposers
from engine.optim.proposers.nearest_demos import NearestDemosProposer
from engine.optim.run import Bench, Report, new_run, unfinished_run, work_on
from engine.program.pool import EMBEDDER
from engine.retrieval.opening import check_embedder
from engine.store.rows import RunRow
from engine.store.store import Store
from engine.tasks.budget import Budget
from engine.tasks.schema import Task
from engine.tasks.taskfile import load_task, override


@click.command("optimize")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.option("--budget", help="10m, 800calls or 2Mtok.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1))
@click.option("--proposers", help="Comma-separated, or all; in place of those in the task file.")
@click.option("--optimizer-model", help="The model that writes critiques and edits.")
@click.option("--model", help="Another model than the task names.")
@click.option(
    "--resume", is_flag=True, help="Go on with the last unfinished run of this task and seed, or begin a new one."
)
@runtime_options
def command(
    task_file: Path, budget: str | None, seed: int | None, proposers: str | None, optimizer_model: str | None,
    model: str | None, resume: bool, common: Common,
) -> int:  # fmt: skip
    """Optimize a task's program. Ctrl-C or SIGTERM saves and stops; --resume goes on."""
    names = tuple(name.strip() for name in proposers.split(",")) if proposers else None
    task = override(
        with_runtime(with_model(load_task(task_file), model), common.runtime),
        budget=budget,
        seed=seed,
        proposers=names,
        optimizer_model=optimizer_model,
    )
    _check_flags(task, budget, names)
    work = read_work(task)
    objective = declared_objective(task, work.program, work.metric)
    if not work.splits.dev:
        raise UsageError(f"{task_file}: the task has no dev split to decide on")
    if len(work.splits.dev) < fewest_examples():
        terminal.complain(
            f"{terminal.counted(len(work.splits.dev), 'dev row')} can decide nothing, so no change will be accepted: "
            f"give the task at least {fewest_examples()}, better 50 or more"
        )
    task, run, resumed = _choose_run(task, common, resume, model, budget)
    run = replace(run, settings={"embeds": _embeds(task), **run.settings})
    try:
        with task_runtime(task, work.program, common.store) as runtime:
            tell_findings(work, work.program)
            bench = Bench(
                task=task,
                splits=work.splits,
                objective=objective,
                program=work.program,
                runtime=runtime,
                folder=state_folder(task.path, common.store) / "runs",
                embeds=run.settings["embeds"],
            )
            with OptimizationProgress() as progress:
                report = work_on(bench, _as_begun(run, runtime), progress)
    except KeyboardInterrupt as stopped:
        terminal.complain(f"interrupted and saved; go on with: {_resuming(task_file, seed, common)}")
        return exit_code(stopped)
    body = {**report.body, "resumed": resumed}
    if common.as_json:
        terminal.print_result(body)
    else:
        _show(report)
    return 0


def _check_flags(task: Task, budget: str | None, proposers: tuple[str, ...] | None) -> None:
    """Flags are checked before anything is loaded; what stands in the file is named by its line."""
    if budget is not None:
        try:
            Budget.parse(budget)
        except ContentError as error:
            raise UsageError(f"--{error}") from None
    try:
        make_proposers(task.file.optimize.proposers)
    except ContentError as error:
        if proposers is not None:
            raise UsageError(f"--proposers: {error}") from None
        raise ContentError(f"{task.where(('optimize', 'proposers'))}: {error}") from None


def _choose_run(
    task: Task, common: Common, resume: bool, model: str | None, budget: str | None
) -> tuple[Task, RunRow, bool]:
    """The run to work on, and the task with the settings that an old one began with; `budget` may replace its own."""
    if resume:
        with Store(store_path(task.path, common.store)) as opened:
            found = unfinished_run(opened, task, model)
        if found:
            kept: Any = {**found.settings, **({"budget": budget} if budget else {})}
            found = replace(found, settings=dict(kept))
            for name in ("identity", "layers", "embeds"):
                kept.pop(name, None)
            task = with_runtime(with_model(task, kept.pop("model")), {**kept.pop("runtime", {}), **common.runtime})
            return _repeatable(override(task, **{**kept, "proposers": tuple(kept["proposers"])})), found, True
        terminal.complain("no unfinished run of this task and seed; beginning a new one")
    task = _repeatable(task)
    return task, new_run(task), False


def _embeds(task: Task) -> bool:
    """Whether the run can find nearest demonstrations.

    Raises:
        ModelMissing, ModelError: they are asked for by name, and it cannot.
    """
    names = task.file.optimize.proposers
    if names != (ALL,) and NearestDemosProposer.name not in names:
        return False
    try:
        check_embedder(EMBEDDER, task.folder)
    except ModelError as error:
        if names == (ALL,):
            return False
        raise type(error)(f"{NearestDemosProposer.name}: {error}") from None
    return True


def _resuming(task_file: Path, seed: int | None, common: Common) -> str:
    """The command that goes on with this run: what finds it again, the rest is kept with it."""
    found = {"--seed": seed, "--store": common.store}
    flags = [part for name, value in found.items() if value is not None for part in (name, str(value))]
    return shlex.join([terminal.own_name(), "optimize", str(task_file), "--resume", *flags])


def _repeatable(task: Task) -> Task:
    """The task with `deterministic: auto` as it is meant here.

    A run with a budget in calls or tokens depends on its seed alone, killed and resumed or not. Under one in time the
    clock decides how far it comes, so that exact bits would only cost calls: with 1,900 tokens of demonstrations a row
    takes three times as long.
    """
    if task.file.runtime.deterministic != "auto":
        return task
    return with_runtime(task, {"deterministic": False if task.budget.unit == "seconds" else "preferred"})


def _as_begun(run: RunRow, runtime: Runtime) -> RunRow:
    """The run with how its model is run; where a resumed one began otherwise, that is said."""
    identity = runtime.backend("task").identity
    if run.settings.get("identity", identity) != identity:
        terminal.complain(
            f"{run.id} began with the model in another format or build, so its calls are paid again; "
            "where `localgrad tune` was run since, --no-tune avoids that"
        )
    return replace(run, settings={"identity": identity, **run.settings})


def _show_proposers(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each proposer cost and won."""
    cells = [
        [
            row["name"],
            str(row["turns"]),
            *(str(row[name]) for name in ("proposals", "raced", "accepted")),
            f"{100 * row['gain']:+.1f}" if row["raced"] else "-",
            f"{row['calls']:,}",
            f"{row['tokens'] / 1000:,.0f}k",
        ]
        for row in rows
    ]
    heads = ["proposer", "turns", "proposed", "raced", "accepted", "best on dev", "calls", "tokens"]
    terminal.table(heads, cells, numbers=range(1, len(heads)))


def _show(report: Report) -> None:
    body = report.body
    rows = []
    for name in ("baseline", "best"):
        scores = body[name]
        cells = [
            terminal.with_interval(scores[split], scores[f"{split}_interval"]) if scores[split] is not None else "-"
            for split in ("dev", "test")
        ]
        rows.append([name, *cells])
    terminal.table(["", "dev", "test"], rows, title=f"{body['task']}: score with 95% interval", numbers=(1, 2))
    if len(body["proposers"]) > 1:
        _show_proposers(body["proposers"])
    if not any(row.examples for row in report.outcome.candidates):
        terminal.say("The budget was spent before any candidate could race, so the baseline is kept: give it more.")
    elif not body["accepted"]:
        terminal.say("Nothing beat the baseline in a paired test, so the baseline is kept.")
    elif "test_gain" in body:
        low, high = body["test_gain"]["interval"]
        gain = 100 * body["test_gain"]["mean"]
        terminal.say(f"gain on test {gain:+.1f} points, 95% interval [{100 * low:+.1f}, {100 * high:+.1f}], paired")
    terminal.say(
        f"{body['proposals']} proposals in {terminal.counted(body['rounds'], 'round')}, {body['accepted']} accepted; "
        f"{terminal.duration(body['seconds'])} ({body['ended']}), test {terminal.duration(body['test_seconds'])}"
    )
    program = terminal.nearby(report.program_path)
    inputs = " ".join(f'-i {name}="…"' for name in report.outcome.best.inputs)
    terminal.say(f"saved   {program}")
    if len(body["front"]) > 1:
        beside = terminal.nearby(report.program_path.with_name("candidate-*.yaml"))
        terminal.say(f"front   {beside}: {len(body['front'])} in score, tokens and seconds")
    terminal.say(f"look    {terminal.own_name()} diff {terminal.nearby(report.program_path.parent)}")
    terminal.say(f"use     {terminal.own_name()} run {program} {inputs}")
