#!/usr/bin/env python3
"""What each proposer gains alone, and what all of them gain together when a bandit allocates the budget.

    scripts/proposers.py                             every proposer on four tasks, 2 minutes each; takes hours
    scripts/proposers.py --only demos bias           some of them

Runs are kept row by row in the file that scripts/gains.py keeps too; what stands there is not run again. Prints a
Markdown table of gains on test in points, `all` last, and how `all` compares with the single proposer that looked best
on dev: the mean paired difference over the test rows of all tasks, with its 95% interval. A proposer that has nothing
to edit in a task's program stands as a dash.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gains import add_options, gain_of, optimized

from engine.optim.proposers import PROPOSERS
from engine.statistics import bootstrap_interval, mean

_TASKS = ("trec", "subj", "ii_antonyms", "svamp")


def main() -> int:
    """Run what is missing, print the table and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(_TASKS))
    parser.add_argument("--only", nargs="+", default=list(PROPOSERS), choices=PROPOSERS)
    add_options(parser)
    options = parser.parse_args()
    together = [optimized(task, "all", options) for task in options.tasks]
    alone = {name: [optimized(task, name, options) for task in options.tasks] for name in options.only}
    print(_table(options.tasks, {**alone, "all": together}))
    print(_comparison(alone, together))
    return 0


def _table(tasks: Sequence[str], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = [f"| proposer | {' | '.join(tasks)} | mean |", "|---" * (len(tasks) + 2) + "|"]
    for name, reports in rows.items():
        cells = [gain_of(report) if report["proposers"] else "–" for report in reports]
        total = 100 * mean([report["test_gain"]["mean"] for report in reports])
        lines.append(f"| {name} | {' | '.join(cells)} | {total:+.1f} |")
    return "\n".join(lines)


def _comparison(alone: Mapping[str, Sequence[Mapping[str, Any]]], together: Sequence[Mapping[str, Any]]) -> str:
    """All against the best single proposer of each task by its dev score; the first named of equals."""
    differences: list[float] = []
    chosen = []
    for place, whole in enumerate(together):
        name = max(alone, key=lambda one: alone[one][place]["best"]["dev"])
        chosen.append(f"{name} ({whole['task']})")
        single = alone[name][place]
        differences += [a - b for a, b in zip(whole["test_scores"]["best"], single["test_scores"]["best"], strict=True)]
    low, high = bootstrap_interval(differences, np.random.default_rng(0))
    figure = f"{100 * mean(differences):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"\nall less the best single one by dev, {', '.join(chosen)}: {figure} points over {len(differences)} rows"


if __name__ == "__main__":
    sys.exit(main())
