"""Progress on stderr: a live line on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from engine.cli.terminal import duration, err, percent, printable
from engine.inference.runtime import Watch
from engine.inference.usage import Usage
from engine.optim.budgeting import Meter
from engine.store.rows import CandidateRow

_PLAIN_EVERY_S = 15.0


@contextmanager
def evaluating(title: str, expected: int) -> Iterator[Watch]:
    """Show how far an evaluation is. Yields the function to give to the runtime as `watch`."""
    console = err()
    speed = _Speed()
    with _Line(console) as line:

        def watch(usage: Usage, open_requests: int) -> None:
            rate = speed.of(usage)
            done = max(0, expected - open_requests)
            line.show(f"{title}: {done} of {expected}, waiting for the model · {rate:.0f} tokens/s")

        line.show(f"{title}: loading" if expected else title)
        yield watch


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Show what is being done. Yields the function that takes it as a text."""
    with _Line(err()) as line:
        yield line.show


class OptimizationProgress:
    """Follows an optimization: what it waits for, dev score, budget left, speed; and each candidate's fate."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or err()
        self._line = _Line(self._console)
        self._speed = _Speed()
        self._title = ""
        self._best = 0.0

    def __enter__(self) -> "OptimizationProgress":
        self._line.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._line.__exit__(*error)

    def phase(self, round: int, name: str, dev_score: float) -> None:
        """A phase begins."""
        where = f"round {round} · " if round and name != "testing" else ""
        self._title = f"{where}{name}" + (f" · dev {percent(dev_score)}" if dev_score else "")
        self._line.show(self._title, always=True)

    def progress(self, usage: Usage, open_requests: int, meter: Meter) -> None:
        """Calls have finished."""
        left = f"{percent(meter.share_left)} of {meter.budget} left"
        waiting = f"waiting for {open_requests} calls" if open_requests else "thinking"
        self._line.show(f"{self._title} · {waiting} · {left} · {self._speed.of(usage):.0f} tokens/s")

    def candidate(self, row: CandidateRow) -> None:
        """A candidate's fate is known: the tested ones are worth a line of their own."""
        if row.p_value is None:
            return
        fate = "[green]accepted[/green]" if row.accepted else "not accepted"
        level = f"p {row.p_value:.2g}, needs {row.level:.2g} or less"
        note = printable(row.note).replace("[", "\\[")
        self._line.keep(f"round {row.round}: dev {percent(row.score)}, {fate} ({level}): {note[:160]}")


class _Speed:
    """Tokens computed per second, over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def of(self, usage: Usage) -> float:
        now = time.perf_counter()
        self._marks = [mark for mark in self._marks if now - mark[0] < 10.0] + [(now, usage.computed_tokens)]
        (_, before), elapsed = self._marks[0], now - self._marks[0][0]
        return (usage.computed_tokens - before) / elapsed if elapsed > 0.2 else 0.0


class _Line:
    """One line that is overwritten on a terminal, and printed every 15 s elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._last = 0.0
        self._start = time.perf_counter()

    def __enter__(self) -> "_Line":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, text: str, always: bool = False) -> None:
        now = time.perf_counter()
        line = f"{duration(now - self._start):>6}  {text}"
        if self._live:
            self._live.update(Text(line, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)
        elif always or now - self._last >= _PLAIN_EVERY_S:
            self._last = now
            self._console.print(line, markup=False, soft_wrap=True)

    def keep(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
