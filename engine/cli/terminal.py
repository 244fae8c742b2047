"""What the commands print: results on stdout, everything else on stderr, and nothing that could drive a terminal."""

import datetime
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table
from rich.text import Text as RichText

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with control and direction-changing characters made visible, so that data cannot drive the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def complain(message: str) -> None:
    """One line on stderr."""
    line = " ".join(printable(message).split())
    click.echo(f"localgrad: {line}", err=True)


def say(text: str = "") -> None:
    """A line of the result on stdout."""
    click.echo(printable(text))


def print_json(value: Any, indent: int | None = None) -> None:
    """One JSON document on stdout, in one line unless `indent` is given. Control characters come as escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    click.echo(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_result(value: Any) -> None:
    """The whole result as one JSON document on stdout, laid out for reading on a terminal."""
    print_json(value, indent=2 if sys.stdout.isatty() else None)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    numbers: Sequence[int] = (),
    spare: Sequence[int] = (),
) -> None:
    """A table on stdout; the columns in `numbers` are set to the right, the first one keeps to one line a row.

    Those in `spare` are left out, one after another, where the terminal is too narrow for all.
    """
    console = out()
    kept = list(range(len(columns)))
    for gone in (*spare, None):
        drawn = Table(title=title or None, title_justify="left", header_style="bold", box=_box(), collapse_padding=True)
        for index in kept:
            justify: JustifyMethod = "right" if index in numbers else "left"
            drawn.add_column(_escaped(columns[index]), justify=justify, overflow="fold", no_wrap=index == 0)
        for row in rows:
            drawn.add_row(*(_escaped(row[index]) for index in kept))
        if gone is None or console.measure(drawn, options=_unbounded(console)).maximum <= console.width:
            break
        kept.remove(gone)
    console.print(drawn)


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]], most: Mapping[int, int]) -> None:
    """A table with one line a row on stdout: `most` is how wide a column may be, and the last takes what is left."""
    drawn = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        last = index == len(columns) - 1
        drawn.add_column(_escaped(name), no_wrap=not last, overflow="ellipsis", max_width=most.get(index))
    for row in rows:
        drawn.add_row(*(RichText(printable(cell), no_wrap=True, overflow="ellipsis") for cell in row))
    out().print(drawn)


def out() -> Console:
    """The console for results: as wide as the terminal, or 110 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def err() -> Console:
    """The console for progress."""
    return Console(stderr=True, highlight=False)


def own_name() -> str:
    """How a person here would call this command again: by its name where it is on the path, else as it was called."""
    if shutil.which("localgrad"):
        return "localgrad"
    called = Path(sys.argv[0])
    return nearby(called) if called.name == "localgrad" else f"{nearby(Path(sys.executable))} -m engine"


def nearby(path: Path) -> str:
    """A path as short as it can be written from this folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)


def local_time(moment: str) -> str:
    """`2025-03-09 14:05`: a time that the store wrote, as it was here; `-` where it is unknown."""
    return f"{datetime.datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}" if moment else "-"


def percent(value: float) -> str:
    """`62.5%`."""
    return f"{100 * value:.1f}%"


def with_interval(value: float, interval: Sequence[float]) -> str:
    """`62.5% [57.1, 67.6]`."""
    return f"{percent(value)} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 round, 2 rounds."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`9.3s`, `4m05s`, `1h02m`."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def confusion_table(confusion: Mapping[str, Mapping[str, int]]) -> None:
    """Expected labels down, predicted labels across; zeros are dots."""
    predicted = sorted({name for row in confusion.values() for name in row} | set(confusion))
    rows = [[label, *(str(confusion[label].get(name, 0) or "·") for name in predicted)] for label in sorted(confusion)]
    table(["expected ↓  predicted →", *predicted], rows, numbers=range(1, len(predicted) + 1))


def _escaped(cell: str) -> str:
    from rich.markup import escape

    return escape(printable(cell))


def _unbounded(console: Console) -> ConsoleOptions:
    """The console's options on a line of any length."""
    return console.options.update(max_width=10_000)


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
