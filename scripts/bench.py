#!/usr/bin/env python3
"""The table of speed: localgrad beside what else could do the same work on the same model file.

    scripts/bench.py                       5 workloads, 3 repetitions; about an hour on 2 cores
    scripts/bench.py --quick               a rough table in about 3 minutes: smaller workloads, 1 repetition
    scripts/bench.py --json                the figures as JSON, one object a workload
    scripts/bench.py --workloads W1 W4     some of them; scripts/workloads.py says what they are

Contenders take turns, each measurement in a process of its own (scripts/contenders.py says what they do):

    as_is, tuned          localgrad on the model's file, and on the layout that its tuning picks
    deterministic         localgrad on the model's file with `deterministic: true`; measured once
    loop                  one `llama_cpp.Llama.create_completion` after another, its own prefix cache helping
    server                8 clients against llama-cpp-python's server, where its extras are installed; measured once
    limit, tuned_limit    bare llama_decode of as many rows as localgrad computed, on the same file

What the figures mean; each is the median over repetitions of a ratio taken within one:

    as_is, tuned, deterministic, server          the loop's seconds / its seconds
    limit_fraction, tuned_limit_fraction         the limit's seconds / ours; 1 is all that llama.cpp can do
    outside_fraction, tuned_outside_fraction     share of our seconds outside llama.cpp's calls
    computed_fraction, tuned_computed_fraction   rows computed, written ones too / prompt tokens asked for

Rows go to a file as they are measured. The next run takes from there what was measured with the same workload, model,
code, llama.cpp and cores, so a run that was interrupted goes on. Prints a Markdown table; progress goes to stderr.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import contenders
import workloads

import engine
from engine.errors import LocalgradError
from engine.inference.models import find_model
from engine.store.keys import canonical, digest

Measured = dict[str, Any]
Figures = dict[str, float | int | None]

# A limit comes right after what it limits; the groups take turns at being first.
_GROUPS = (("as_is", "limit"), ("loop",), ("tuned", "tuned_limit"), ("deterministic",), ("server",))
_ONCE = ("deterministic", "server")
_LIMITS = {"limit": "as_is", "tuned_limit": "tuned"}
_QUIET_LOAD = 0.5
_FEWEST_REPETITIONS = 3
_QUICK_CAP, _FULL_CAP = 1024, 8192
_FIRST_GUESS_S = {True: 8.0, False: 50.0}


class Cell(NamedTuple):
    """One measurement: whose, of what, and which time."""

    workload: str
    contender: str
    repetition: int


Rows = Mapping[Cell, Measured]
Measure = Callable[[Cell, Rows], Measured]


def main() -> int:
    """Measure what is missing, print the table."""
    options = _options()
    if missing := workloads.missing_sets(options.data):
        lacks = f"{missing[0]} (one of {len(missing)} files)"
        sys.exit(f"bench: {options.data} lacks {lacks}; give the folder of the public task sets with --data")
    _print_machine()
    if options.fresh:
        options.out.unlink(missing_ok=True)
    try:
        ledger = Ledger(options.out, _settings(options))
    except LocalgradError as error:
        sys.exit(f"bench: {error}")
    code = 0
    try:
        fill(turns(options.workloads, options.repetitions), ledger, _measurer(options), _FIRST_GUESS_S[options.quick])
    except KeyboardInterrupt:
        _tell(f"stopped; {options.out} keeps what is finished, run this again to go on")
        code = 130
    figures = summarize(ledger.rows, options.workloads)
    print(json.dumps(figures, indent=2) if options.json else table(figures))
    return code


def turns(names: Sequence[str], repetitions: int) -> list[Cell]:
    """Every measurement, in the order of measuring."""
    cells = []
    for repetition in range(repetitions):
        first = repetition % len(_GROUPS)
        order = [name for group in (*_GROUPS[first:], *_GROUPS[:first]) for name in group]
        due = [contender for contender in order if repetition == 0 or contender not in _ONCE]
        cells += [Cell(workload, contender, repetition) for workload in names for contender in due]
    return cells


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


class Ledger:
    """The file of rows. `rows` are those that belong to the settings, by workload, that this run measures under."""

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        self._path, self._settings = path, settings
        self.rows: dict[Cell, Measured] = {}
        self._text = path.read_text("utf-8") if path.exists() else ""
        for row in _parsed(self._text):
            if row["setting"] == settings.get(row["workload"]):
                self.rows[Cell(row["workload"], row["contender"], row["repetition"])] = row

    def add(self, cell: Cell, measured: Measured) -> None:
        """Keep a measurement."""
        row = {"setting": self._settings[cell.workload], **cell._asdict(), **measured}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torn = self._text and not self._text.endswith("\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(row) + "\n")
        self._text = ""
        self.rows[cell] = row


def fill(cells: Sequence[Cell], ledger: Ledger, measure: Measure, guess_s: float) -> None:
    """Measure the cells that the ledger lacks. A contender that is absent is left out with one line."""
    absent: set[str] = set()

    def due(cell: Cell) -> bool:
        gone = cell.contender in absent or _LIMITS.get(cell.contender) in absent
        return not gone and cell not in ledger.rows

    for index, cell in enumerate(cells):
        if not due(cell):
            continue
        left = [later for later in cells[index:] if due(later)]
        left_s = sum(_expected_s(later, ledger.rows, guess_s) for later in left)
        own_s = _expected_s(cell, ledger.rows, guess_s)
        _tell(
            f"{cell.workload} {cell.contender}, repetition {cell.repetition + 1}: about {_duration(own_s)}, "
            f"{len(left)} to go in about {_duration(left_s)}"
        )
        start = time.perf_counter()
        measured = measure(cell, ledger.rows)
        if "absent" in measured:
            absent.add(cell.contender)
            _tell(f"{cell.contender} is left out: {measured['absent']}")
        else:
            ledger.add(cell, {**measured, "wall_s": time.perf_counter() - start})


def _expected_s(cell: Cell, rows: Rows, guess_s: float) -> float:
    """How long a measurement will take: as the same one did before, as its workload's others, as any, or a guess."""
    same = [row["wall_s"] for known, row in rows.items() if known[:2] == cell[:2]]
    workload = [row["wall_s"] for known, row in rows.items() if known.workload == cell.workload]
    every = [row["wall_s"] for row in rows.values()]
    known_s = same or workload or every
    return statistics.fmean(known_s) if known_s else guess_s


def _measurer(options: argparse.Namespace) -> Measure:
    """Measures a cell in a process of its own."""
    script = str(Path(contenders.__file__))

    def measure(cell: Cell, rows: Rows) -> Measured:
        name = "limit" if cell.contender in _LIMITS else cell.contender
        command = [sys.executable, script, cell.workload, name, "--data", str(options.data), "--model", options.model]
        command += ["--work", str(options.out.parent / "bench")]
        command += ["--quick"] if options.quick else []
        if cell.contender in _LIMITS:
            command += limit_arguments(cell, rows, _QUICK_CAP if options.quick else _FULL_CAP)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            what = f"{cell.workload} {cell.contender} ended with exit code {done.returncode}"
            sys.exit(f"bench: {what}; run this again to go on")
        measured: Measured = json.loads(done.stdout)
        return measured

    return measure


def limit_arguments(cell: Cell, rows: Rows, cap: int) -> list[str]:
    """What a limit is asked: the rows and the file of what it limits, in the shape found fastest for that file."""
    limited = rows[cell._replace(contender=_LIMITS[cell.contender])]
    path = limited["model_path"]
    arguments = ["--file", path, "--computed", str(limited["computed_tokens"]), "--outputs", str(limited["outputs"])]
    arguments += ["--cap", str(cap)]
    known = [row["shape"] for row in rows.values() if row.get("shape") and row.get("file") == path]
    return [*arguments, "--shape", json.dumps(known[0])] if known else arguments


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """By workload, a hash of everything that a row depends on."""
    sizes = workloads.QUICK if options.quick else workloads.FULL
    code = [*sorted(Path(engine.__file__).parent.rglob("*.py")), Path(contenders.__file__)]
    common = [
        find_model(options.model, Path()).sha256,
        digest("".join(path.read_text("utf-8") for path in code)),
        importlib.metadata.version("llama-cpp-python"),
        contenders.cores(),
        options.quick,
    ]
    built = {name: workloads.build(name, options.data, sizes) for name in options.workloads}
    return {name: digest(canonical([*common, workload.fingerprint])) for name, workload in built.items()}


def _parsed(text: str) -> Iterator[Measured]:
    """The rows of a file; a line that was cut off is no row."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def summarize(rows: Rows, names: Sequence[str]) -> dict[str, Figures]:
    """The figures of each workload; None where a contender has no row."""
    return {name: _figures({cell[1:]: row for cell, row in rows.items() if cell.workload == name}) for name in names}


def _figures(rows: Mapping[tuple[str, int], Measured]) -> Figures:
    """Figures of one workload from its rows by contender and repetition."""

    def ratio(above: str, below: str) -> float | None:
        both = [number for name, number in rows if name == below and (above, number) in rows]
        return _median([rows[above, number]["seconds"] / rows[below, number]["seconds"] for number in both])

    def of(contender: str, figure: Callable[[Measured], float | None]) -> float | None:
        return _median([figure(row) for (name, _), row in rows.items() if name == contender])

    figures: Figures = {name: ratio("loop", name) for name in ("as_is", "tuned", "deterministic", "server")}
    for prefix, contender in (("", "as_is"), ("tuned_", "tuned")):
        figures[f"{prefix}limit_fraction"] = ratio(f"{prefix}limit", contender)
        figures[f"{prefix}outside_fraction"] = of(contender, lambda row: 1.0 - row["inside_s"] / row["seconds"])
        figures[f"{prefix}computed_fraction"] = of(contender, lambda row: row["computed_tokens"] / row["prompt_tokens"])
    for contender in (name for group in _GROUPS for name in group):
        figures[f"{contender}_seconds"] = of(contender, lambda row: row["seconds"])
    figures["repetitions"] = len({number for name, number in rows if name == "as_is" and ("loop", number) in rows})
    return figures


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def table(figures: Mapping[str, Figures]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| workload | as is | tuned | deterministic | server | limit | tuned limit | outside | computed "
        "| loop, s | as is, s | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        cells = [name, *(_shown(row[key], "{:.2f}×") for key in ("as_is", "tuned", "deterministic", "server"))]
        fractions = ("limit_fraction", "tuned_limit_fraction", "outside_fraction", "computed_fraction")
        cells += [_shown(row[key], "{:.2f}") for key in fractions]
        cells += [_shown(row[key], "{:.1f}") for key in ("loop_seconds", "as_is_seconds")]
        lines.append(f"| {' | '.join([*cells, str(row['repetitions'])])} |")
    fewest = min(int(row["repetitions"] or 0) for row in figures.values())
    if fewest < _FEWEST_REPETITIONS:
        lines.append(f"\nRough: fewer than {_FEWEST_REPETITIONS} repetitions.")
    return "\n".join(lines)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


# ── the edge ─────────────────────────────────────────────────────────────────────────────────────


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workloads", nargs="+", choices=list(workloads.BUILDERS), default=list(workloads.BUILDERS))
    parser.add_argument("--repetitions", type=int, help="3, with --quick 1")
    parser.add_argument("--data", type=Path, default=workloads.DATA, help="folder of the public task sets")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=Path(".localgrad/bench.jsonl"))
    parser.add_argument("--fresh", action="store_true", help="forget what --out holds")
    options = parser.parse_args()
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else _FEWEST_REPETITIONS
    return options


def _print_machine() -> None:
    load = os.getloadavg()[0]
    _tell(
        f"{contenders.cores()} cores, llama-cpp-python {importlib.metadata.version('llama-cpp-python')}, "
        f"load average {load:.2f}, localgrad at {Path(engine.__file__).parent}"
    )
    if load > _QUIET_LOAD:
        _tell(f"warning: a load average above {_QUIET_LOAD} means that something else is running: figures will be off")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _tell(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
