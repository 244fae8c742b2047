"""Starting the interpreter's worker processes, with what the operating system can take from them taken."""

import os
import shlex
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import LocalgradError

if TYPE_CHECKING:
    from pydantic_monty import Monty

RUNTIME = "pydantic-monty-runtime"
GRACE_S = 0.1  # past its time, a worker that does not end by itself is killed
_RUNS = 1000  # of one process, against slow leaks

# No core dumps, no file can grow, Ctrl-C is for the parent alone, nothing reaches the terminal. The environment is
# empty already: the pool passes none on.
_LAUNCHER = """#!/bin/sh
ulimit -c 0
ulimit -f 0
trap '' INT
exec {binary} "$@" 2>/dev/null
"""


def open_pool(folder: Path, workers: int) -> "Monty":
    """Start a pool of at most so many processes. `folder` must live as long as it does.

    Raises:
        LocalgradError: the interpreter is not installed, or cannot be started.
    """
    from pydantic_monty import Monty  # here, because it takes 0.1 s

    pool = Monty(
        binary_path=_launcher(folder, _binary()),
        min_processes=1,
        max_processes=workers,
        max_checkouts_per_worker=_RUNS,
        feed_duration_limit_grace=GRACE_S,
        turn_duration_limit_grace=GRACE_S,
    )
    try:
        return pool.__enter__()
    except RuntimeError as error:
        raise LocalgradError(f"the Python interpreter for model-written code does not start: {error}") from None


def _launcher(folder: Path, binary: Path) -> Path:
    """A script that starts the binary with less; the binary itself where scripts in `folder` may not run."""
    script = folder / "worker"
    script.write_text(_LAUNCHER.format(binary=shlex.quote(str(binary))), encoding="utf-8")
    script.chmod(0o700)
    return script if os.access(script, os.X_OK) else binary


def _binary() -> Path:
    """The program of the installed runtime, and not one of another version that is also on the path."""
    try:
        listed = metadata.files(RUNTIME) or ()
    except metadata.PackageNotFoundError:
        listed = ()
    for file in listed:
        if file.name == "monty":
            return Path(str(file.locate())).resolve()
    raise LocalgradError(f"running Python needs {RUNTIME}: pip install 'pydantic-monty>=1.4,<1.5'")
