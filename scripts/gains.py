#!/usr/bin/env python3
"""The table of gains: optimize each task of scripts/tasks and set baseline and best side by side.

    scripts/gains.py                                 ten tasks, 2 minutes each and the test after it
    scripts/gains.py --budget 10m --tasks trec sst2 agnews subj
    scripts/gains.py --proposers demos,bias          another choice than that of the task files

The task sets are public ones and not part of this project; each is a folder with train.jsonl and test.jsonl, rows
{"input", "target"}. Results go to a file row by row; runs that stand there already are not made again, and one that was
cut goes on. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TASKS = (
    "trec", "subj", "ii_antonyms", "svamp", "sst2", "agnews", "snips_intent", "ii_larger_animal", "bbh_navigate",
    "bbh_object_counting",
)  # fmt: skip
_FOLDER = Path(__file__).parent / "tasks"


def main() -> int:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--proposers", default="all")
    add_options(parser)
    options = parser.parse_args()
    rows = [optimized(task, options.proposers, options) for task in options.tasks]
    print(_table(rows))
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is common to scripts that optimize."""
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".localgrad/gains.jsonl"))


def optimized(task: str, proposers: str, options: argparse.Namespace) -> dict[str, Any]:
    """The report of one run, from the file where it stands there, else made and written there."""
    key = {"task": task, "proposers_asked": proposers, "seed": options.seed, "budget": options.budget}
    for row in _read(options.out):
        if all(row[name] == value for name, value in key.items()):
            return row
    report = {**_optimize(task, proposers, options), **key}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
    return report


def gain_of(row: Mapping[str, Any]) -> str:
    """The gain on test in points, with its paired interval."""
    gain = row["test_gain"]
    low, high = gain["interval"]
    return f"{100 * gain['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def _optimize(task: str, proposers: str, options: argparse.Namespace) -> dict[str, Any]:
    """Each run has a store of its own, so that none finds calls that another paid for."""
    store = options.out.parent / f"{task}-{proposers}-{options.seed}-{options.budget}" / "store.db"
    command = [sys.executable, "-m", "engine", "optimize", str(_FOLDER / f"{task}.yaml"), "--seed", str(options.seed)]
    command += ["--budget", options.budget, "--proposers", proposers, "--store", str(store), "--resume", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{task} with {proposers} ended with exit code {done.returncode}; run this again to go on")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| task | baseline, test | best, test | gain | accepted | minutes |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row["task"], _score(row["baseline"]), _score(row["best"]), gain_of(row)]
        cells += [
            f"{row['accepted']} of {row['proposals']}",
            f"{row['seconds'] / 60:.1f} + {row['test_seconds'] / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    mean = sum(row["test_gain"]["mean"] for row in rows) / len(rows)
    return "\n".join([*lines, f"| mean | | | {100 * mean:+.1f} | | |"])


def _score(scores: Mapping[str, Any]) -> str:
    low, high = scores["test_interval"]
    return f"{100 * scores['test']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
