"""localgrad graph: a program drawn, and what it costs."""

from pathlib import Path

import click

from engine.cli import terminal
from engine.cli.options import Common, common_options
from engine.cli.session import read_work
from engine.errors import UsageError
from engine.program.cost import Cost
from engine.program.drawing import as_svg, as_text
from engine.program.estimate import ASSUMED_TOKENS, estimate, mean_sizes
from engine.program.graph import Program
from engine.program.saved import is_saved_program, load_saved
from engine.tasks.taskfile import load_task


@click.command("graph")
@click.argument("file", metavar="PROGRAM|TASK", type=click.Path(path_type=Path))
@click.option("--svg", type=click.Path(path_type=Path), help="Write a picture to this file as well.")
@common_options
def command(file: Path, svg: Path | None, common: Common) -> int:
    """Draw a program: what it reads, its nodes in the order of execution, its answer, and what an example may cost.

    The cost is an estimate for inputs as long as the train rows of a TASK have them in the mean.
    """
    program, sizes = _read(file)
    cost = estimate(program, sizes)
    lines = [*as_text(program), _cost_line(cost, known=bool(sizes))]
    if svg is not None:
        try:
            svg.write_text(as_svg(program), "utf-8")
        except OSError as error:
            raise UsageError(f"--svg {svg}: cannot be written: {error.strerror}") from None
    if common.as_json:
        body = {"fingerprint": program.fingerprint, "program": program.to_mapping(), "lines": lines}
        inputs = {name: sizes.get(name, ASSUMED_TOKENS) for name in program.inputs}
        totals = {"calls": cost.calls, "read": cost.read, "written": cost.written, "bounded": cost.bounded}
        terminal.print_result(body | {"cost": {**totals, "inputs": inputs, "inputs_assumed": not sizes}})
    else:
        for line in lines:
            terminal.say(line)
    return 0


def _read(file: Path) -> tuple[Program, dict[str, int]]:
    """The program of a file, and how many tokens its inputs have where there are rows that tell."""
    if is_saved_program(file):
        return load_saved(file).program, {}
    work = read_work(load_task(file))
    return work.program, mean_sizes(work.splits.train)


def _cost_line(cost: Cost, known: bool) -> str:
    """`at most 5 calls an example, about 1,200 tokens read and 300 written`."""
    totals = f"about {_rounded(cost.read):,} tokens read and {_rounded(cost.written):,} written"
    assumed = "" if known else f", where every input has {ASSUMED_TOKENS} tokens"
    bound = "at most" if cost.bounded else "besides layers that do not say what they cost, at most"
    return f"{bound} {terminal.counted(cost.calls, 'call')} an example, {totals}{assumed}"


def _rounded(number: int) -> int:
    """To two digits."""
    return round(number, 2 - len(str(number)))
