"""Running code that the user wrote, such as a metric: whatever it raises becomes one clear line."""

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from engine.errors import ContentError, LocalgradError, UsageError

USER_MODULE = "localgrad_user_"  # how the names of modules of the user's begin


class blamed(AbstractContextManager[None]):  # noqa: N801 (reads as a verb: with blamed("metric.py:f"))
    """Turn any ordinary exception of the block, or its wish to exit, into a `ContentError` that starts with `where`."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, LocalgradError):
            said = " ".join(str(error).split())
            raise ContentError(f"{self._where}: {type(error).__name__}{said and ': '}{said}") from error


def load_function(
    reference: str, folder: Path, where: str, read: dict[Path, ModuleType] | None = None
) -> Callable[..., Any]:
    """The function that `file.py:function` names; the file's path starts from `folder`.

    Files that stand in `read` are not read again, and those that are come to stand in it.

    Raises:
        UsageError: no such file.
        ContentError: another form, no such function, or the file fails when it is read.
    """
    file_name, _, function_name = reference.rpartition(":")
    if not file_name or not function_name:
        raise ContentError(f"{where}: write it as file.py:function, not {reference!r}")
    path = folder / file_name
    read = {} if read is None else read
    if path not in read:
        read[path] = load_module(path, where)
    function = getattr(read[path], function_name, None)
    if not callable(function):
        raise ContentError(f"{where}: {path} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def load_module(path: Path, where: str) -> ModuleType:
    """A file of Python, read anew.

    Raises:
        UsageError: no such file.
        ContentError: it is no Python file, or fails when it is read.
    """
    if not path.is_file():
        raise UsageError(f"{where}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"{USER_MODULE}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ContentError(f"{where}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    with blamed(f"{where}: {path} fails when it is read"):
        spec.loader.exec_module(module)
    return module
