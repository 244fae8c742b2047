"""A run from start to saved program: its identity, its lock, its place in the store, and the test at the end."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation import Evaluation, evaluate, figure_of
from engine.feedback.declared import calibrated_objective
from engine.feedback.objective import Objective
from engine.inference.runtime import Runtime
from engine.inference.usage import Usage
from engine.optim.allocation import Play
from engine.optim.budgeting import Meter
from engine.optim.history import Candidate
from engine.optim.loop import Outcome, Setting, Watcher, optimize
from engine.optim.proposers import make_proposers
from engine.program.graph import Program
from engine.program.saved import SavedProgram
from engine.statistics import bootstrap_interval, mean
from engine.store.locks import locked_run
from engine.store.rows import CandidateRow, RunRow
from engine.store.store import Store
from engine.tasks.metrics import Metric
from engine.tasks.schema import Task
from engine.tasks.splits import Splits

BEST = "program.yaml"  # the name of the file that holds a run's best program, in the run's folder
_HEARTBEAT_S = 2.0


def new_run(task: Task) -> RunRow:
    """A run that has not begun. Its id tells the task and the time; nothing in its results depends on it."""
    settings = task.file.optimize
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return RunRow(
        id=f"{task.file.name}-{stamp}-{os.urandom(2).hex()}",
        kind="optimize",
        task=task.file.name,
        task_path=str(task.path.resolve()),
        task_fingerprint=task.fingerprint,
        seed=settings.seed,
        settings={
            "model": task.file.model,
            "proposers": list(settings.proposers),
            "budget": settings.budget,
            "optimizer_model": settings.optimizer_model,
            "runtime": asdict(task.file.runtime),
            "layers": [str((task.folder / file).resolve()) for file in task.file.layers],
        },
    )


def unfinished_run(store: Store, task: Task, model: str | None = None) -> RunRow | None:
    """The last run of this task file's content and seed that did not come to its end; of `model` where one is named."""
    for run in store.runs():
        same = run.task_fingerprint == task.fingerprint and run.seed == task.file.optimize.seed
        wanted = model is None or run.settings["model"] == model
        if run.kind == "optimize" and same and wanted and run.status != "done":
            return run
    return None


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run works with: a task's parts, a program to start from, and where its files go.

    `embeds` says that nearest demonstrations can be found.
    """

    task: Task
    splits: Splits
    objective: Objective
    program: Program
    runtime: Runtime
    folder: Path
    embeds: bool = False

    def saved(self, program: Program) -> SavedProgram:
        """A program of this task as it is saved. A model given by its path is named by its full path."""
        name = self.task.file.model
        if name.lower().endswith(".gguf") and not name.startswith("hf:"):
            name = str((self.task.folder / name).resolve())
        sha256 = self.runtime.backend("task").sha256
        return SavedProgram(self.task.file.name, name, sha256, program, self.task.folder, self.task.file.layers)


@dataclass(frozen=True, slots=True)
class Report:
    """What a finished run has to say."""

    run: RunRow
    outcome: Outcome
    baseline_test: Evaluation | None
    best_test: Evaluation | None
    program_path: Path
    body: Mapping[str, Any]


def work_on(bench: Bench, run: RunRow, watcher: Watcher) -> Report:
    """Carry a run, new or resumed, to its end: the loop, the test, the saved program.

    Raises:
        RunLocked: another live process is working on it.
    """
    store = bench.runtime.store
    with locked_run(bench.folder, run.id):
        store.put_run(replace(run, status="running"))
        store.put_program(bench.program.fingerprint, bench.program.to_mapping())
        meter = Meter(bench.task.budget, bench.runtime.usage, run.seconds)
        with _ending_well(store, run, meter):
            outcome = optimize(_setting(bench, run), bench.runtime, meter, _Heartbeat(watcher, store, run))
            seconds = meter.seconds
            watcher.phase(outcome.rounds, "testing", figure_of(outcome.best_dev, bench.objective.metric)[0])
            before, after = _test(bench, outcome, run, meter, watcher)
        path = bench.folder / run.id / BEST
        bench.saved(outcome.best).save(path)
        for candidate in outcome.front:
            bench.saved(candidate.program).save(_candidate_path(path, candidate))
        body = _body(bench, run, outcome, before, after, seconds, path)
        finished = replace(run, status="done", seconds=seconds, report=body)
        store.put_run(finished)
        return Report(finished, outcome, before, after, path, body)


def _setting(bench: Bench, run: RunRow) -> Setting:
    calibrating = calibrated_objective(bench.objective, bench.task, bench.program, bench.splits.train)
    return Setting(
        run=run.id,
        program=bench.program,
        train=bench.splits.train,
        dev=bench.splits.dev,
        objective=bench.runtime.run(calibrating),
        proposers=make_proposers(tuple(run.settings["proposers"])),
        seed=run.seed,
        min_gain=bench.task.file.optimize.min_gain,
        embeds=bench.embeds,
    )


def _test(
    bench: Bench, outcome: Outcome, run: RunRow, meter: Meter, watcher: Watcher
) -> tuple[Evaluation | None, Evaluation | None]:
    """Score baseline and best on test, once, outside the budget."""
    if not bench.splits.test:
        return None, None

    def scored(program: Program) -> Evaluation:
        return evaluate(
            program,
            bench.splits.test,
            bench.objective.metric,
            bench.runtime,
            run.id,
            watch=lambda usage, open_requests: watcher.progress(usage, open_requests, meter),
        )

    before = scored(bench.program)
    return before, before if outcome.best.fingerprint == bench.program.fingerprint else scored(outcome.best)


def _body(
    bench: Bench,
    run: RunRow,
    outcome: Outcome,
    before: Evaluation | None,
    after: Evaluation | None,
    seconds: float,
    path: Path,
) -> dict[str, Any]:
    """The run's result as plain data; what `--json` prints."""
    usage, metric = bench.runtime.usage, bench.objective.metric
    body: dict[str, Any] = {
        "run": run.id,
        "task": bench.task.file.name,
        "seed": run.seed,
        "baseline": {
            **_scores(outcome.baseline_dev, before, metric),
            "fingerprint": bench.program.fingerprint,
        },
        "best": {**_scores(outcome.best_dev, after, metric), "fingerprint": outcome.best.fingerprint},
        "proposals": len(outcome.candidates),
        "accepted": sum(row.accepted for row in outcome.candidates),
        "rounds": outcome.rounds,
        "ended": outcome.ended,
        "proposers": _by_proposer(outcome.plays),
        "front": [_in_front(candidate, bench, path) for candidate in outcome.front],
        "seconds": round(seconds, 2),
        "test_seconds": round(sum(e.usage.seconds for e in {id(e): e for e in (before, after) if e}.values()), 2),
        "calls": usage.calls,
        "cached_calls": usage.cached_calls,
        "prompt_tokens": usage.prompt_tokens,
        "computed_tokens": usage.computed_tokens,
        "generated_tokens": usage.generated_tokens,
        "program": str(path),
    }
    if before and after:
        differences = [b.score - a.score for a, b in zip(before.traces, after.traces, strict=True)]
        low, high = bootstrap_interval(differences, np.random.default_rng(0))
        body["test_gain"] = {"mean": after.score - before.score, "interval": [low, high]}
        body["test_scores"] = {
            name: [trace.score for trace in one.traces] for name, one in (("baseline", before), ("best", after))
        }
    return body


def _candidate_path(program: Path, candidate: Candidate) -> Path:
    """Where a candidate of the front is saved, beside the run's `program`."""
    return program.with_name(f"candidate-{candidate.number}.yaml")


def _in_front(candidate: Candidate, bench: Bench, path: Path) -> dict[str, Any]:
    """A candidate of the front: what it is worth, and the mean tokens and seconds of an example of dev."""
    traces = candidate.traces
    return {
        "number": candidate.number,
        "proposer": candidate.proposer,
        "fingerprint": candidate.program.fingerprint,
        "dev": figure_of(traces, bench.objective.metric)[0],
        "tokens": round(mean([trace.tokens for trace in traces]), 1),
        "seconds": round(mean([trace.seconds for trace in traces]), 4),
        "program": str(_candidate_path(path, candidate)),
    }


def _by_proposer(plays: Sequence[Play]) -> list[dict[str, Any]]:
    """What each proposer that played cost and won, in the order of their first turns.

    `gain` is the most that one of its candidates was above the incumbent of its time on dev, accepted or not; calls and
    tokens are as asked, for proposing, screening and racing.
    """
    names = dict.fromkeys(play.proposer for play in plays)
    rows = []
    for name in names:
        own = [play for play in plays if play.proposer == name]
        sums = {
            field: sum(getattr(play, field) for play in own)
            for field in ("proposals", "raced", "accepted", "calls", "tokens")
        }
        rows.append({"name": name, "turns": len(own), **sums, "gain": max(play.gain for play in own)})
    return rows


def _scores(dev: Any, test: Evaluation | None, metric: Metric) -> dict[str, Any]:
    figure, interval = figure_of(dev, metric)
    scores: dict[str, Any] = {"dev": figure, "dev_interval": list(interval), "test": None, "test_interval": None}
    if test:
        scores |= {"test": test.score, "test_interval": list(test.interval)}
    return scores


@contextmanager
def _ending_well(store: Store, run: RunRow, meter: Meter) -> Iterator[None]:
    """Whatever ends the block early, the run is left resumable with the seconds it has used."""
    finished = False
    try:
        yield
        finished = True
    finally:
        if not finished:
            store.put_run(replace(run, status="interrupted", seconds=meter.seconds))


class _Heartbeat:
    """A watcher that also writes the seconds spent into the store, so that a killed run does not forget them."""

    def __init__(self, inner: Watcher, store: Store, run: RunRow) -> None:
        self._inner, self._store, self._run = inner, store, run
        self._last = time.perf_counter()

    def phase(self, round: int, name: str, dev_score: float) -> None:
        self._inner.phase(round, name, dev_score)

    def progress(self, usage: Usage, open_requests: int, meter: Meter) -> None:
        now = time.perf_counter()
        if now - self._last >= _HEARTBEAT_S:
            self._last = now
            self._store.put_run(replace(self._run, status="running", seconds=meter.seconds))
        self._inner.progress(usage, open_requests, meter)

    def candidate(self, row: CandidateRow) -> None:
        self._inner.candidate(row)
