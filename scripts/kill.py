#!/usr/bin/env python3
"""Kill optimize runs at random moments with SIGKILL, resume them, and compare with a run that was left in peace.

    scripts/kill.py                                  20 kills with the embedded model
    scripts/kill.py --model scripted:1ms --kills 20  the same with the scripted backend, where every byte must agree

Prints a line a kill and a summary as JSON. Exit code 1 where a finished call was paid twice, or where fewer runs than
asked for (--agree, by default all but two in twenty; all of them when scripted) ended with the same accepted edits.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.store.store import Store

_DEMO = Path(__file__).parents[1] / "engine" / "demo"


@dataclass(frozen=True)
class Ending:
    """How a run ended: its saved program, its accepted edits, and what its store says about calls."""

    program: bytes
    accepted: list[str]
    calls: int
    paid: int


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", type=Path, help="a task file; by default a small one on the bundled data")
    parser.add_argument("--budget", default="600calls")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--agree", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    needed = options.agree if options.agree is not None else _default_agreement(options.model, options.kills)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = options.task or _small_task(folder, scripted=options.model.startswith("scripted"))
        start = time.perf_counter()
        reference = _finish(_command(task, options, folder / "whole"), folder / "whole")
        whole_s = time.perf_counter() - start
        print(
            f"uninterrupted: {whole_s:.1f} s, {len(reference.accepted)} accepted, {reference.calls} calls", flush=True
        )
        same_bytes = same_edits = paid_twice = killed = 0
        while killed < options.kills:
            place = folder / f"kill-{killed}"
            moment_s = moments.uniform(0.2, whole_s)
            if not _killed(_command(task, options, place), moment_s):
                continue  # it was over before the kill
            ending = _finish([*_command(task, options, place), "--resume"], place)
            killed += 1
            identical, agree = ending.program == reference.program, ending.accepted == reference.accepted
            same_bytes, same_edits = same_bytes + identical, same_edits + agree
            paid_twice += ending.paid - ending.calls
            outcome = f"{'same' if agree else 'OTHER'} edits, {'identical' if identical else 'another'} program"
            print(
                f"kill {killed} at {moment_s:.1f} s: {outcome}, {ending.paid - ending.calls} calls paid twice",
                flush=True,
            )
    summary = {
        "kills": killed,
        "same_accepted_edits": same_edits,
        "identical_programs": same_bytes,
        "calls_paid_twice": paid_twice,
        "seconds_uninterrupted": round(whole_s, 1),
        "accepted": len(reference.accepted),
    }
    print(json.dumps(summary))
    return int(paid_twice > 0 or same_edits < needed)


def _default_agreement(model: str, kills: int) -> int:
    return kills if model.startswith("scripted") else kills - kills // 10


def _small_task(folder: Path, scripted: bool) -> Path:
    """The bundled task on fewer rows, so that one run takes well under a minute.

    The scripted backend understands nothing but label words, so for it every message begins with its team.
    """
    task = yaml.safe_load((_DEMO / "task.yaml").read_text("utf-8"))
    for name in ("train.jsonl", "test.jsonl"):
        rows = [json.loads(line) for line in (_DEMO / name).read_text("utf-8").splitlines()]
        if scripted:
            rows = [{**row, "message": f"{row['team']}: {row['message']}"} for row in rows]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task["data"]["train"]["limit"] = 100
    task["data"]["dev"]["limit"] = 60
    task["data"]["test"]["limit"] = 30
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(task), "utf-8")
    return path


def _command(task: Path, options: argparse.Namespace, place: Path) -> list[str]:
    arguments = ["optimize", str(task), "--model", options.model, "--budget", options.budget]
    return [sys.executable, "-m", "engine", *arguments, "--store", str(place / "store.db"), "--json"]


def _killed(command: list[str], moment_s: float) -> bool:
    """Start a run and kill it after so many seconds; False where it had ended by then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def _finish(command: list[str], place: Path) -> Ending:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    with Store(place / "store.db") as store:
        calls, paid = store.calls_paid()
        accepted = [f"{row.proposer}: {row.note}" for row in store.candidates(report["run"]) if row.accepted]
    return Ending(Path(report["program"]).read_bytes(), accepted, calls, paid)


if __name__ == "__main__":
    sys.exit(main())
