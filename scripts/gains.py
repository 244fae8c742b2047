#!/usr/bin/env python3
"""The table of gains: optimize each task of scripts/tasks and set baseline and best side by side.

    scripts/gains.py                                 trec, sst2, agnews, subj; 10 minutes each and the test after it
    scripts/gains.py --budget 2m --tasks trec        a quick look at one

The task sets are public ones and not part of this project; each is a folder with train.jsonl and test.jsonl, rows
{"input", "target"}. Results go to a file row by row; tasks that stand there already are not run again. Prints a
Markdown table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TASKS = Path(__file__).parent / "tasks"


def main() -> int:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["trec", "sst2", "agnews", "subj"])
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".localgrad/gains.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = _read(options.out)
    for task in options.tasks:
        key = (task, options.seed, options.budget)
        if key not in rows:
            rows[key] = {**_optimize(task, options), "budget": options.budget}
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[key]) + "\n")
    print(_table([rows[task, options.seed, options.budget] for task in options.tasks]))
    return 0


def _read(path: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.strip()]
    return {(row["task"], row["seed"], row["budget"]): row for row in found}


def _optimize(task: str, options: argparse.Namespace) -> dict[str, Any]:
    path = _TASKS / f"{task}.yaml"
    store = options.out.parent / f"{task}-{options.seed}-{options.budget}" / "store.db"
    command = [sys.executable, "-m", "engine", "optimize", str(path), "--seed", str(options.seed)]
    command += ["--budget", options.budget, "--store", str(store), "--resume", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"gains: {task} ended with exit code {done.returncode}; run this again to go on")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _table(rows: list[Mapping[str, Any]]) -> str:
    lines = ["| task | baseline, test | best, test | gain | accepted | minutes |", "|---|---|---|---|---|---|"]
    gains = []
    for row in rows:
        gain = row["test_gain"]
        gains.append(gain["mean"])
        cells = [row["task"], _score(row["baseline"]), _score(row["best"])]
        cells.append(f"{100 * gain['mean']:+.1f} [{100 * gain['interval'][0]:+.1f}, {100 * gain['interval'][1]:+.1f}]")
        cells += [
            f"{row['accepted']} of {row['proposals']}",
            f"{row['seconds'] / 60:.1f} + {row['test_seconds'] / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| mean | | | {100 * sum(gains) / len(gains):+.1f} | | |")
    return "\n".join(lines)


def _score(scores: Mapping[str, Any]) -> str:
    low, high = scores["test_interval"]
    return f"{100 * scores['test']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
