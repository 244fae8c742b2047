"""localgrad init: write a task to start from."""

from importlib import resources
from pathlib import Path

import click

from engine.cli import terminal
from engine.errors import UsageError

_FILES = ("task.yaml", "train.jsonl", "test.jsonl")


@click.command("init")
@click.argument("folder", metavar="DIR", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(folder: Path | None, as_json: bool) -> int:
    """Copy the bundled task (routing support messages to teams) into DIR. Never overwrites anything."""
    if folder is None:
        raise UsageError(f"name a folder for the new task, as in: {terminal.own_name()} init my-task")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, not a folder")
    present = [name for name in _FILES if (folder / name).exists()]
    if present:
        raise UsageError(
            f"{folder / present[0]}: already there; choose an empty folder, as in: "
            f"{terminal.own_name()} init {folder.name or 'my-task'}-2"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).write_bytes((resources.files("engine") / "demo" / name).read_bytes())
    except OSError as error:
        raise UsageError(f"{folder}: cannot write here: {error.strerror}") from None
    task = folder / "task.yaml"
    if as_json:
        terminal.print_result({"task": str(task), "files": [str(folder / name) for name in _FILES]})
    else:
        terminal.say(f"wrote {', '.join(_FILES)} to {folder}")
        terminal.say("Edit the files to make the task yours. To see how good its program is, and to make it better:")
        terminal.say(f"  localgrad eval {task}")
        terminal.say(f"  localgrad optimize {task}")
    return 0
