"""localgrad attribute: what each piece of a program does to the likelihood of right answers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from engine.cli import terminal
from engine.cli.options import Common, runtime_options
from engine.cli.progress import evaluating
from engine.cli.session import check_model, read_work, task_runtime, with_model, with_runtime
from engine.errors import ContentError, UsageError
from engine.feedback.attribution import (
    Attribution,
    ablate,
    attribute,
    attribute_inputs,
    can_be_attributed,
    can_be_read,
    pieces_of,
)
from engine.flows import Flow
from engine.optim.calibration import unseen
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.saved import load_saved
from engine.records import Example
from engine.tasks.taskfile import load_task

_TEXT_CHARS = 100
_STYLES = {"keep": "helps", "drop": "harms", "edit": ""}


@click.command("attribute")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.option("--program", "program_file", type=click.Path(path_type=Path), help="Look at this saved program instead.")
@click.option("--split", type=click.Choice(["train", "dev"]), default="train", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), default=24, show_default=True, help="Rows to measure on.")
@click.option(
    "--halves", type=click.IntRange(min=1), help="Leave out this many random halves instead of single pieces."
)
@click.option("--row", help="Look at what the last node read for the row of this id: passages and earlier answers.")
@click.option("--model", help="Another model than the task names.")
@runtime_options
def command(
    task_file: Path, program_file: Path | None, split: Any, limit: int, halves: int | None, row: str | None,
    model: str | None, common: Common,
) -> int:  # fmt: skip
    """Say what each sentence and demonstration of a program does to the likelihood of right answers.

    Each is left out once, and the accepted answers of a few rows are scored again. The worst come first: without them
    the answers are likelier.
    """
    task = with_runtime(with_model(load_task(task_file), model), common.runtime)
    work = read_work(task)
    saved = load_saved(program_file) if program_file else None
    program = saved.program if saved else work.program
    rows = work.splits.named(split)
    flow = _of_row(program, rows, row, split) if row else _of_pieces(program, rows, limit, halves, task_file)
    with task_runtime(task, program, common.store) as runtime:
        if saved and program_file:
            check_model(saved, runtime, program_file)
        with evaluating(f"{task.file.name} attribution", 0) as watch:
            found = runtime.run(flow, watch=watch)
    if common.as_json:
        terminal.print_result([{**asdict(one.piece), **_figures(one)} for one in found])
    else:
        _show(found, task.file.name)
    return 0


def _of_pieces(
    program: Program, rows: Sequence[Example], limit: int, halves: int | None, task_file: Path
) -> Flow[list[Attribution]]:
    """The flow that measures sentences and demonstrations, on rows that no demonstration shows."""
    if not can_be_attributed(program):
        raise ContentError(f"{task_file}: only one answer of a node that asks once has a likelihood, or a choice")
    if not pieces_of(program):
        raise ContentError(f"{task_file}: nothing can be left out: no text of two sentences, no set of demonstrations")
    examples = [row for row in unseen(program, rows) if row.accepted][:limit]
    if not examples:
        raise UsageError(f"{task_file}: no row with an answer is left that the program does not show")
    return ablate(program, examples, np.random.default_rng(0), halves) if halves else attribute(program, examples)


def _of_row(program: Program, rows: Sequence[Example], row: str, split: str) -> Flow[list[Attribution]]:
    """The flow that measures what the last node read for one row."""
    example = next((example for example in rows if example.id == row), None)
    if example is None:
        raise UsageError(f"--row {row}: no row of {split} has this id")
    if not can_be_read(program):
        raise ContentError(f"--row {row}: the last node reads nothing of others, or its answer has no likelihood")
    return attribute_inputs(program, example)


def _figures(one: Attribution) -> dict[str, Any]:
    return {"effect": one.effect, "error": one.error, "examples": one.examples, "advice": one.advice}


def _show(found: Sequence[Attribution], name: str) -> None:
    if not found:
        terminal.say(f"{name}: nothing was read that could be left out")
        return
    rows = []
    for one in found:
        spread = f" ± {2 * one.error:.2f}" if one.error else ""
        said = _STYLES[one.advice] if one.error else ""
        rows.append([f"{one.effect:+.2f}{spread}", said, one.piece.place, one_line(one.piece.text, _TEXT_CHARS)])
    terminal.table(["effect", "", "of", "piece"], rows, numbers=(0,))
    terminal.say(
        f"{name}: by how many nats the right answers are less likely without a piece, "
        f"with twice the standard error over {terminal.counted(found[0].examples, 'row')}"
    )
