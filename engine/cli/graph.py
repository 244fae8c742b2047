"""localgrad graph: a program drawn."""

from pathlib import Path

import click

from engine.cli import terminal
from engine.cli.options import Common, common_options
from engine.cli.session import read_work
from engine.errors import UsageError
from engine.program.drawing import as_svg, as_text
from engine.program.saved import is_saved_program, load_saved
from engine.tasks.taskfile import load_task


@click.command("graph")
@click.argument("file", metavar="PROGRAM|TASK", type=click.Path(path_type=Path))
@click.option("--svg", type=click.Path(path_type=Path), help="Write a picture to this file as well.")
@common_options
def command(file: Path, svg: Path | None, common: Common) -> int:
    """Draw a program: what it reads, its nodes in the order of execution, and its answer."""
    program = load_saved(file).program if is_saved_program(file) else read_work(load_task(file)).program
    lines = as_text(program)
    if svg is not None:
        try:
            svg.write_text(as_svg(program), "utf-8")
        except OSError as error:
            raise UsageError(f"--svg {svg}: cannot be written: {error.strerror}") from None
    if common.as_json:
        terminal.print_result({"fingerprint": program.fingerprint, "program": program.to_mapping(), "lines": lines})
    else:
        for line in lines:
            terminal.say(line)
    return 0
