"""localgrad check: what can be seen to be wrong with a task before it is run, and what its prompts take."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from engine.cli import terminal
from engine.cli.options import Common, runtime_options
from engine.cli.progress import working
from engine.cli.session import Work, model_runtime, read_work, where_named, with_model, with_runtime
from engine.errors import ModelError
from engine.feedback.static.analysis import findings
from engine.feedback.static.context import Limits
from engine.feedback.static.finding import Finding, worst_first
from engine.feedback.static.measuring import measured
from engine.feedback.static.sizes import Size, estimated
from engine.feedback.static.subject import Subject
from engine.inference.remote.address import is_address
from engine.opening import absences
from engine.optim.acceptance import fewest_examples
from engine.program.declared import where_declared
from engine.program.places import places
from engine.tasks.schema import Task
from engine.tasks.taskfile import load_task

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_ADVICE = {
    "index": "build it, or name another",
    "embedder": "see localgrad doctor",
    "tool": "write the function, or drop the tool",
    "database": "put the file there, or name another",
}


@dataclass(frozen=True, slots=True)
class _Checked:
    """All that was found about a task: each finding with its `file:line`, and the sizes of prompts."""

    task: Task
    found: Sequence[tuple[Finding, str]]
    sizes: Sequence[Size]
    limits: Limits

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding, _ in self.found)

    @property
    def verdict(self) -> str:
        """What it comes to, in one line."""
        counts = [terminal.counted(self.count(name), name) for name in _STYLES if self.count(name)]
        if not counts:
            return f"{self.task.file.name}: nothing found"
        then = "; put what is an error right first" if self.count("error") else ""
        return f"{self.task.file.name}: {', '.join(counts)}{then}"


@click.command("check")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.option("--model", help="Another model than the task names.")
@runtime_options
def command(task_file: Path, model: str | None, common: Common) -> int:
    """Look for what is wrong with a task: its program, its rows and how they fit together.

    Nothing is run and no model is asked; it is loaded to count tokens as it reads them. Exits with 1 where an error is
    found: what fails, or can never be right.
    """
    task = with_runtime(with_model(load_task(task_file), model), common.runtime)
    checked = _checked(read_work(task), common.store)
    if common.as_json:
        terminal.print_result(_body(checked))
    else:
        _show(checked)
    return int(checked.count("error") > 0)


def _checked(work: Work, store: str | None) -> _Checked:
    task = work.task
    subject = Subject(work.program, work.splits.train, work.splits.dev, work.metric)
    sizes, limits = _measured(subject, task, store)
    absent, places_of_absent = _absent(work)
    found = worst_first([*absent, *findings(subject, limits, sizes)])
    return _Checked(task, [(one, places_of_absent.get(one) or _where(one, task)) for one in found], sizes, limits)


def _measured(subject: Subject, task: Task, store: str | None) -> tuple[list[Size], Limits]:
    """The sizes of prompts and what bounds them; estimates where there is no model to count."""
    fewest = fewest_examples()
    asked = replace(task, file=replace(task.file, optimize=replace(task.file.optimize, optimizer_model=None)))
    try:
        with working() as show:
            show("loading the model to count tokens")
            with model_runtime(asked, store) as runtime:
                exact = not is_address(task.file.model)
                sizes = runtime.run(measured(subject))
                return sizes, Limits(runtime.backend("task").context, fewest, exact)
    except ModelError as error:
        terminal.complain(f"{error}; tokens are estimated, one for every four characters")
        context = task.file.runtime.context
        return estimated(measured(subject)), Limits(None if context == "auto" else context, fewest, exact=False)


def _absent(work: Work) -> tuple[list[Finding], dict[Finding, str]]:
    """What the program needs beside itself and is not there, and where the task names it."""
    where: dict[Finding, str] = {}
    for need, error in absences(work.program, work.task.folder):
        needing = [place.name for place in places(work.program) if need in place.layer.outside]
        innermost = max(needing, key=lambda name: name.count("."))
        finding = Finding("error", "outside", innermost, str(error), _ADVICE[need.kind])
        where[finding] = where_named(work.task, need.name)
    return list(where), where


def _where(finding: Finding, task: Task) -> str:
    """`file:line` of the row or of the place in the task file that a finding is about."""
    if finding.row:
        return finding.row
    return task.where(tuple(finding.place.split("."))) if finding.of_task else where_declared(task, finding.place)


def _body(checked: _Checked) -> dict[str, Any]:
    context, exact = checked.limits.context, checked.limits.exact
    nodes = [{**asdict(size), "worst": size.worst, "share": _share(size, context)} for size in checked.sizes]
    return {
        "task": checked.task.file.name,
        "ok": not checked.count("error"),
        **{f"{name}s": checked.count(name) for name in _STYLES},
        "findings": [{**asdict(finding), "where": where} for finding, where in checked.found],
        "context": context,
        "counted": exact,
        "requests": nodes,
    }


# ── for people ───────────────────────────────────────────────────────────────────────────────────


def _show(checked: _Checked) -> None:
    """On a terminal a table; elsewhere a line for each finding, which begins with where it is."""
    if checked.found and terminal.out().is_terminal:
        terminal.out().print(_table(checked.found))
        terminal.say()
    for finding, where in checked.found if not terminal.out().is_terminal else ():
        said = f"{finding.severity}: {finding.place}: {finding.text}; {finding.advice}"
        terminal.say(" ".join(f"{where}: {said}".split()))
    if checked.sizes:
        _show_sizes(checked)
    terminal.say(checked.verdict)


def _table(found: Sequence[tuple[Finding, str]]) -> Table:
    """A finding a row: how bad, where, and below what is the matter what to do."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=34)
    table.add_column(overflow="fold", ratio=1)
    for finding, where in found:
        style = _STYLES[finding.severity]
        place = Text(terminal.printable(finding.place))
        place.append(f"\n{terminal.printable(_short(where))}", style="dim")
        text = Text(terminal.printable(finding.text))
        text.append(f"\n→ {terminal.printable(finding.advice)}", style="dim")
        table.add_row(Text(finding.severity, style=style), place, text)
    return table


def _short(where: str) -> str:
    """The file's name and the line."""
    path, _, line = where.rpartition(":")
    return f"{Path(path).name}:{line}"


def _show_sizes(checked: _Checked) -> None:
    """The tokens of a request of each place, and how much of the context they take."""
    context, exact = checked.limits.context, checked.limits.exact
    rows = [_row(size, checked.limits) for size in checked.sizes]
    columns = ["request of", "fixed", "demos", "a row", "longest row", "from nodes", "reply", "most", "share"]
    held = f"; share of a context of {context:,}" if context else ""
    title = f"tokens of each request{'' if exact else ', estimated'}{held}"
    empty = [column for column in (2, 5) if all(row[column] in "·-" for row in rows)]
    spare = dict.fromkeys((*empty, 3, 6, 4))  # what says least is left out first
    terminal.table(columns, rows, title=title, numbers=range(1, 9), spare=tuple(spare))


def _row(size: Size, limits: Limits) -> list[str]:
    if size.by == "none":
        return [size.place, *["-"] * 7, "not said"]
    share = _share(size, limits.context)
    known = [size.fixed, size.demos, size.rows, size.longest, size.others, size.reply]
    parts = [f"{number:,}" if number else "·" for number in known] if size.by == "count" else ["-"] * 6
    about = "" if size.by == "count" and limits.exact else "~"
    return [size.place, *parts, f"{about}{size.worst:,}", "-" if share is None else f"{share:.0%}"]


def _share(size: Size, context: int | None) -> float | None:
    return None if context is None or size.by == "none" else round(size.worst / context, 4)
