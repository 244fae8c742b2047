"""Layers of the user's own: Python files that a task names, read so that the layers they define are known."""

from collections.abc import Sequence
from pathlib import Path

from engine.errors import ContentError
from engine.tasks.usercode import load_module


def load_layers(files: Sequence[str], folder: Path, where: str) -> None:
    """Read files that define layers; their paths start from `folder`, and `where` is who names them.

    They run as the user's own code, with all its rights.

    Raises:
        UsageError: no such file.
        ContentError: a file fails when it is read, or a layer has the kind of one that is there already.
    """
    for file in files:
        try:
            load_module(folder / file, where)
        except ContentError as error:
            said = str(error)
            raise ContentError(said if said.startswith(where) else f"{where}: {folder / file}: {said}") from None
