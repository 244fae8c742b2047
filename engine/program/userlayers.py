"""Layers of the user's own: Python files that a task names, read so that the layers they define are known."""

from collections.abc import Sequence
from pathlib import Path

from engine.errors import ContentError
from engine.program.layer import LAYERS
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
            module = load_module(folder / file, where)
        except ContentError as error:
            said = str(error)
            raise ContentError(said if said.startswith(where) else f"{where}: {folder / file}: {said}") from None
        if not any(kind.__module__ == module.__name__ for kind in LAYERS.values()):
            raise ContentError(f"{where}: {folder / file}: defines no layer: a subclass of Layer with a kind")
