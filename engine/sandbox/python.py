"""Python that a model wrote, in pydantic-monty: an interpreter of its own that knows no files, network or processes.

It runs in worker processes, so that neither a crash nor a memory blow-up reaches this one. The clock stands still,
sleeping takes no time and chance is seeded: the same source and inputs give the same outcome. The language is a subset
of Python (no `yield`, no inheritance, few modules); what is missing ends a run with an error that names it.
"""

import functools
import json
import keyword
import os
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from engine.errors import ContentError, LocalgradError
from engine.sandbox.outcome import Limit, Outcome, one_line
from engine.sandbox.values import NotJson, TooLong, json_text
from engine.sandbox.workers import RUNTIME, open_pool

if TYPE_CHECKING:
    from pydantic_monty import MontyError, OSPolicy, ResourceLimits

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

_CLOCK = datetime(2000, 1, 1)
_SEED = 0
_REQUESTS = 32  # to the host: names that do not exist, files that may not be opened. All are refused.

_ENDED_BY: tuple[tuple[str, Limit], ...] = (
    (r"TimeoutError: feed time limit exceeded", "time"),
    (r"MemoryError: (memory limit exceeded|the worker exceeded its memory limit)", "memory"),
    (r"RecursionError: |SyntaxError: Source is too deeply nested", "recursion"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. `recursion` counts calls inside calls; `output_chars` bounds the value, and the print-out.

    Raises:
        ContentError: a limit is out of its bounds.
    """

    seconds: float = 1.0
    memory_bytes: int = 64 << 20
    recursion: int = 200
    output_chars: int = 10_000

    def __post_init__(self) -> None:
        bounds = {
            "seconds": (0.01, 600),
            "memory_bytes": (1 << 20, 4 << 30),
            "recursion": (10, 1000),
            "output_chars": (1, 10_000_000),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise ContentError(f"{name}: {getattr(self, name)!r}, expected {least} to {most}")


class PythonSandbox:
    """A warm interpreter; threads may share it. Close it, or use it as a context manager."""

    def __init__(self, workers: int = 1) -> None:
        """Start it, with at most so many processes; runs beyond them wait for one to be free.

        Raises:
            LocalgradError: the interpreter is not installed, or cannot be started.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="localgrad-")
        self._pool = open_pool(Path(self._folder.name), workers)

    def run(self, source: str, inputs: Mapping[str, Json], limits: Limits) -> Outcome:
        """Run a program; its value is that of its last line, where that is an expression, else null.

        `inputs` are its variables. It ends within `limits.seconds` and a quarter of a second, counted from when a
        process is free. What the interpreter has no form for outside itself (a range, a compiled pattern) comes back
        as its text; functions, sets, bytes, dates and objects are errors.

        Raises:
            ContentError: the inputs are no JSON, or a name among them cannot be that of a variable.
            LocalgradError: no process can be started, or the sandbox is closed.
        """
        if len(_checked(inputs)) > limits.memory_bytes // 4:
            return Outcome(error=_message("memory", limits), limit="memory")
        try:
            return self._outcome(source, inputs, limits)
        except RuntimeError as error:
            raise LocalgradError(f"the Python interpreter for model-written code cannot go on: {error}") from None

    def _outcome(self, source: str, inputs: Mapping[str, Json], limits: Limits) -> Outcome:
        """Run on the next free worker.

        Raises:
            RuntimeError: no worker can be started, or the sandbox is closed.
        """
        from pydantic_monty import MontyError

        printed = _Printed(limits.output_chars)
        with self._pool.checkout(limits=_resources(limits), os_policy=_policy()) as session:
            try:
                value = session.feed_run(source, inputs=dict(inputs), print_callback=printed.add)
                outcome = Outcome(json_text(value, limits.output_chars, limits.recursion), None, printed.text)
            except MontyError as error:
                outcome = _failed(error, printed.text, limits)
            except NotJson as error:
                outcome = Outcome(error=f"the result is not JSON: {one_line(str(error))}", printed=printed.text)
            except TooLong:
                outcome = Outcome(error=_message("output", limits), printed=printed.text, limit="output")
            if outcome.limit and session.worker_pid:  # what it holds can no longer be trusted; the pool starts another
                os.kill(session.worker_pid, signal.SIGKILL)
        return outcome

    def close(self) -> None:
        """End the processes."""
        self._pool.__exit__(None, None, None)
        self._folder.cleanup()

    def __enter__(self) -> "PythonSandbox":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def python_identity() -> str:
    """What besides source, inputs and limits decides an outcome: it belongs into the key of a call."""
    return f"pydantic-monty {_version()}, clock {_CLOCK:%Y-%m-%d}, seed {_SEED}"


@functools.cache
def _version() -> str:
    return metadata.version(RUNTIME)


class _Printed:
    """What a program prints, kept up to a length; the rest is read and dropped, so that the program goes on."""

    def __init__(self, longest: int) -> None:
        self.text = ""
        self._longest = longest

    def add(self, stream: str, text: str) -> None:
        if len(self.text) < self._longest:
            self.text += text[: self._longest - len(self.text)]


def _checked(inputs: Mapping[str, Json]) -> str:
    """The inputs as JSON."""
    for name in inputs:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ContentError(f"input {name!r}: cannot be the name of a variable: letters, digits and '_'")
    try:
        text = json.dumps(inputs, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ContentError(f"inputs: not JSON: {error}") from None
    return text


def _resources(limits: Limits) -> "ResourceLimits":
    return {
        "max_feed_duration_secs": limits.seconds,
        "max_memory": limits.memory_bytes,
        "max_recursion_depth": limits.recursion,
        "max_suspensions": _REQUESTS,
        "max_total_sleep_secs": 0.0,
    }


def _policy() -> "OSPolicy":
    return {
        "datetime": _CLOCK,
        "timezone": "utc",
        "sleep": "zero",
        "process_time": "zero",
        "random_start": {"seed": _SEED},
    }


def _failed(error: "MontyError", printed: str, limits: Limits) -> Outcome:
    """The outcome of a run that the interpreter ended."""
    from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

    if isinstance(error, MontyCrashedError):
        if error.timed_out:
            return Outcome(error=_message("time", limits), printed=printed, limit="time")
        return Outcome(error="the interpreter crashed", printed=printed)
    if not isinstance(error, MontyRuntimeError | MontySyntaxError):
        return Outcome(error=one_line(str(error)), printed=printed)
    said = error.display("type-msg")
    for pattern, limit in _ENDED_BY:
        if re.match(pattern, said):
            return Outcome(error=_message(limit, limits), printed=printed, limit=limit)
    if said.startswith("RuntimeError: suspension limit"):
        return Outcome(
            error=f"asked for something outside, or for an unknown name, over {_REQUESTS} times", printed=printed
        )
    frames = error.traceback()
    place = f"line {frames[-1].line}: " if frames else ""
    return Outcome(error=one_line(place + said), printed=printed)


def _message(limit: Limit, limits: Limits) -> str:
    return {
        "time": f"time limit: ran for more than {limits.seconds:g} s",
        "memory": f"memory limit: needed more than {limits.memory_bytes / (1 << 20):g} MB",
        "recursion": f"recursion limit: calls nested more than {limits.recursion} deep, or brackets too deep",
        "output": f"output limit: the value is longer than {limits.output_chars} characters",
    }[limit]
