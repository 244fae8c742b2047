"""localgrad run: answer with a program, one example or a file of them."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from engine.cli import terminal
from engine.cli.options import Common, runtime_options
from engine.cli.session import read_work, saved_runtime, task_runtime, with_runtime
from engine.errors import ContentError, UsageError
from engine.forward import example_from, forward, unrolled
from engine.inference.runtime import Runtime
from engine.program.graph import Program
from engine.program.recurrence import carries_state
from engine.program.saved import SavedProgram, is_saved_program, load_saved
from engine.records import Prediction
from engine.store.traces import answering_name
from engine.tasks.rows import Row, json_row, read_rows
from engine.tasks.schema import RuntimeSettings
from engine.tasks.taskfile import load_task
from engine.tasks.textfile import decoded

_STDIN = Path("-")


@click.command("run")
@click.argument("program_file", metavar="PROGRAM|TASK", type=click.Path(path_type=Path))
@click.argument("rows_file", metavar="[FILE|-]", required=False)
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=TEXT", help="One program input; repeat for several."
)
@click.option("--remember", is_flag=True, help="Write what the program's memory has come to hold into PROGRAM.")
@runtime_options
def command(program_file: Path, rows_file: str | None, inputs: tuple[str, ...], remember: bool, common: Common) -> int:
    """Run a saved program, or the program a task declares, on -i inputs, a file of rows, or standard input (-).

    Rows name the program's inputs as fields (or the fields the task maps to them). Standard input is JSON lines, or
    plain lines for a program with a single input.
    """
    if not program_file.exists():
        raise UsageError(f"{program_file}: no such file")
    if bool(inputs) == (rows_file is not None):
        raise UsageError("give either -i NAME=TEXT for one example, or a FILE of rows or - for standard input")
    saved = _remembering(program_file) if remember else None
    with _opened(program_file, common) as (name, program, fields, runtime):
        examples = [_given(inputs, program)] if inputs else _rows(str(rows_file), program, fields)
        given = [example_from(example) for example in examples]
        runtime.store.put_program(program.fingerprint, program.to_mapping())
        if saved is None:
            traces = runtime.run(forward(program, given), run=answering_name(name))
        else:
            traces, after = runtime.run(unrolled(program, given), run=answering_name(name))
            if after != saved.program:
                replace(saved, program=after).save(program_file)
        predictions = [trace.prediction for trace in traces]
    for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True), start=1):
        _print(example, prediction, number, len(examples), common.as_json)
    return int(any(prediction.error for prediction in predictions))


def _remembering(path: Path) -> SavedProgram:
    """A saved program that can remember.

    Raises:
        UsageError: it is a task, or has no memory that writes.
    """
    if not is_saved_program(path):
        raise UsageError(
            f"{path}: --remember writes into a saved program, and this is a task: optimize it, then run that"
        )
    saved = load_saved(path)
    if not carries_state(saved.program):
        raise UsageError(f"{path}: --remember needs a memory that writes, and this program has none")
    return saved


@contextmanager
def _opened(path: Path, common: Common) -> Iterator[tuple[str, Program, Mapping[str, str], Runtime]]:
    """The name of a file's task, its program, which row fields feed its inputs, and a runtime for it."""
    if is_saved_program(path):
        saved = load_saved(path)
        with saved_runtime(saved, path, common.store, RuntimeSettings(**common.runtime)) as runtime:
            yield saved.name, saved.program, {name: name for name in saved.program.inputs}, runtime
    else:
        work = read_work(with_runtime(load_task(path), common.runtime))
        with task_runtime(work.task, work.program, common.store) as runtime:
            yield work.task.file.name, work.program, work.task.file.data.inputs, runtime


def _given(inputs: Sequence[str], program: Program) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in inputs:
        name, mark, value = text.partition("=")
        if not mark:
            raise UsageError(f"-i {text!r}: write it as NAME=TEXT; this program reads {', '.join(program.inputs)}")
        if name.strip() in values:
            raise UsageError(f"-i {name.strip()}: given twice")
        values[name.strip()] = value
    try:
        program.check_inputs(values)
    except ContentError as error:
        raise UsageError(f"-i: {error}") from None
    return values


def _rows(file: str, program: Program, fields: Mapping[str, str]) -> list[dict[str, str]]:
    if "=" in file and not Path(file).exists():
        raise UsageError(f"{file}: no such file; one input is given as -i {file.partition('=')[0]}=…")
    rows = _stdin_rows(program) if file == "-" else read_rows(Path(file))
    if not rows:
        raise ContentError(f"{file}: no rows")
    return [{name: row.text(name if name in row.values else fields[name]) for name in program.inputs} for row in rows]


def _stdin_rows(program: Program) -> list[Row]:
    rows = []
    for number, line in enumerate(decoded(sys.stdin.buffer.read(), _STDIN).split("\n"), start=1):
        if not line.strip():
            continue
        if line.lstrip().startswith("{"):
            rows.append(json_row(_STDIN, number, line))
        elif len(program.inputs) == 1:
            rows.append(Row(_STDIN, number, {program.inputs[0]: line}))
        else:
            raise ContentError(
                f"-:{number}: this program reads {', '.join(program.inputs)}; give one JSON object a line"
            )
    return rows


def _print(example: Mapping[str, str], prediction: Prediction, number: int, count: int, as_json: bool) -> None:
    if prediction.error:
        place = f"row {number}: " if count > 1 else ""
        terminal.complain(f"{place}{prediction.error}")
    if as_json:
        body = {
            "inputs": dict(example),
            "answer": prediction.text,
            "outputs": dict(prediction.outputs),
            "probabilities": dict(prediction.probabilities) if prediction.probabilities else None,
            "error": prediction.error,
        }
        terminal.print_json(body)
    elif not prediction.error or count > 1:
        terminal.say(prediction.text)
