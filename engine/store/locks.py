"""One process per run, or per index: a lock file that the system releases when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from engine.errors import RunLocked


def is_live(folder: Path, run: str) -> bool:
    """Whether some process holds the run's lock."""
    try:
        with (folder / f"{run}.lock").open("r", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def locked_run(folder: Path, run: str) -> AbstractContextManager[None]:
    """Hold `folder/run.lock` for the duration of the block.

    Raises:
        RunLocked: a live process holds it; the message names its pid.
    """
    return locked(folder / f"{run}.lock", f"run {run}")


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the duration of the block; `what` is what it guards.

    Raises:
        RunLocked: a live process holds it; the message names its pid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunLocked(
                f"{what} is being worked on by process {file.read().strip() or 'unknown'}; wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
