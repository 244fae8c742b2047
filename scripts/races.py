#!/usr/bin/env python3
"""What races save and what they miss: every policy on recorded scores, against running all programs on all rows.

    scripts/races.py                                 24 programs on 200 rows of trec, subj and agnews; 50 races of each
    scripts/races.py --sets sst2 --first-seed 1000   another set, other races
    scripts/races.py --rows 100 --runners 6          races of the size that a run has
    scripts/races.py --null                          how often a whole run accepts something that is no better

Scores come from the real model and are recorded once: 5,600 calls a set, 2 minutes for the questions of trec and up to
50 for the articles of agnews on 2 busy cores. A recording that was cut short goes on from its store. The task sets are
public ones and not part of this project; each is a folder with train.jsonl, rows {"id", "input", "target"}.

`--null` needs no model. In 2,000 runs of 5 rounds for each rate of disagreement, 6 candidates a round race on 100 rows
and the winner is tested, as in a run; no candidate is better than the incumbent. Prints Markdown tables.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from races_recorded import DATA, PROGRAMS, ROWS, SETS, recorded
from races_simulated import figures, null_figures

from engine.optim.racing import DEFAULT, POLICIES

_DISCORDANT = (0.1, 0.2, 0.4)


def main() -> int:
    """Record what is missing, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["trec", "subj", "agnews"])
    parser.add_argument("--runners", type=int, nargs="+", default=[8, PROGRAMS])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path(".localgrad/races"))
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    if options.null:
        _print_null(options.runs)
    else:
        _print_races(options)
    return 0


def _print_races(options: argparse.Namespace) -> None:
    seeds = range(options.first_seed, options.first_seed + options.races)
    print("| set | runners | policy | same winner | within a point | executions | behind, where another |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for recording in recorded(options.sets, options.out, options.data, options.model):
        for runners in options.runners:
            for name, policy in POLICIES.items():
                found = figures(recording.scores, recording.losses, policy, runners, seeds, options.rows)
                cells = [recording.name, str(runners), f"{name}{' (default)' * (policy is DEFAULT)}"]
                cells += [f"{100 * share:.0f}%" for share in (found.same, found.near, found.share)]
                cells.append(f"{100 * found.behind:.1f} points" if found.same < 1 else "")
                print(f"| {' | '.join(cells)} |", flush=True)


def _print_null(runs: int) -> None:
    print("| rows that differ | runs | accepted something | executions |\n|---|---|---|---|", flush=True)
    for discordant in _DISCORDANT:
        found = null_figures(DEFAULT, runs, discordant, np.random.default_rng(0))
        cells = [f"{100 * discordant:.0f}%", f"{runs:,}", f"{100 * found.accepted:.2f}%", f"{100 * found.share:.0f}%"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
