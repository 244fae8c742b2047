"""The loop: how one run turns a program into a better one.

    until the budget is spent
        feed back      run the incumbent on a minibatch of train, walk backward over its failures
        propose        every proposer edits the incumbent, side by side
        calibrate      what changes a prompt gets the bias that suits it; what train likes least is dropped
        race           the edited programs run on dev, block by block
        accept         the winner replaces the incumbent if it beats it in a paired test

Everything that decides is either computed from stored calls or committed to the store (the allowance of a round, which
depends on the clock), so a resumed run is a replay that asks the store instead of the model until it reaches the point
where it was cut. A phase that the budget cuts short is dropped whole, whatever had finished of it; that makes the end
of a run independent of the order in which calls finish.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from engine.errors import BudgetSpent, ContentError
from engine.feedback.backward import backward
from engine.feedback.losses import mean_loss
from engine.flows import Flow, together
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.usage import Usage
from engine.optim.acceptance import Verdict, judge, level_of
from engine.optim.budgeting import Meter, RoundPlan
from engine.optim.calibration import bias_parameter, calibrated, unseen
from engine.optim.history import History, Proposer
from engine.optim.racing import DEFAULT, Bar, Runner, best_finished, race
from engine.program.graph import Program
from engine.records import Example, Feedback, Trace
from engine.statistics import mean
from engine.store.keys import seed_of
from engine.store.rows import CandidateRow
from engine.tasks.metrics import Metric

T = TypeVar("T")

_MINIBATCH = 24
_QUIET_ROUNDS = 3


class Watcher(Protocol):
    """Whoever wants to follow a run. Nothing it does changes the run."""

    def phase(self, round: int, name: str, dev_score: float) -> None:
        """A phase begins."""

    def progress(self, usage: Usage, open_requests: int, meter: Meter) -> None:
        """Calls have finished."""

    def candidate(self, row: CandidateRow) -> None:
        """A candidate's fate is known."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one run works on; the same setting and seed give the same run."""

    run: str
    program: Program
    train: Sequence[Example]
    dev: Sequence[Example]
    metric: Metric
    proposers: Sequence[Proposer]
    seed: int

    def generator(self, *names: str | int) -> Generator:
        """A random generator for one purpose, independent of all others."""
        return np.random.default_rng(seed_of(self.seed, *names))

    @property
    def calibrates(self) -> bool:
        """Whether biases are weights in this run."""
        return any(proposer.name == "bias" for proposer in self.proposers)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `best` is the baseline where nothing beat it."""

    best: Program
    baseline_dev: Sequence[Trace]
    best_dev: Sequence[Trace]
    candidates: Sequence[CandidateRow]
    rounds: int
    ended: str


def optimize(setting: Setting, runtime: Runtime, meter: Meter, watcher: Watcher) -> Outcome:
    """Run the loop until the budget is spent, dev is solved, or the proposers run dry.

    Raises:
        ContentError: no dev example could be answered at all.
    """
    loop = _Loop(setting, runtime, meter, watcher)
    baseline_dev = loop.evaluate_baseline()
    ended = loop.improve()
    return Outcome(loop.incumbent, baseline_dev, loop.dev_traces, tuple(loop.rows), loop.round, ended)


@dataclass(frozen=True, slots=True)
class _Edited:
    """A proposal put into effect. `train_loss` stays 0 where nothing was measured."""

    proposer: str
    note: str
    program: Program
    has_bias: bool
    train_loss: float = 0.0


class _Loop:
    """The state of a running loop."""

    def __init__(self, setting: Setting, runtime: Runtime, meter: Meter, watcher: Watcher) -> None:
        self._setting, self._runtime, self._meter, self._watcher = setting, runtime, meter, watcher
        self.incumbent = setting.program
        self.dev_traces: Sequence[Trace] = ()
        self.rows: list[CandidateRow] = []
        self.round = 0
        self._seen = {setting.program.fingerprint}

    def evaluate_baseline(self) -> Sequence[Trace]:
        """Score the program as it was given; this counts towards the budget, but is done whatever the budget is."""
        self._begin("baseline")
        baseline = forward(self.incumbent, self._setting.dev, self._setting.metric)
        self.dev_traces = self._runtime.run(baseline, run=self._setting.run, watch=self._watch)
        if all(trace.prediction.error for trace in self.dev_traces):
            reason = self.dev_traces[0].prediction.error
            raise ContentError(f"not one dev example could be answered; the first failed with: {reason}")
        return self.dev_traces

    def improve(self) -> str:
        """Round after round; why it ended."""
        quiet = 0
        try:
            for self.round in itertools.count(1):
                if mean([trace.score for trace in self.dev_traces]) >= 1.0 and mean_loss(self.dev_traces) < 0.01:
                    return "dev is solved"
                plan = self._plan()
                proposals = self._screened(self._new(self._propose(self._history(plan), plan)), plan)
                quiet = 0 if proposals else quiet + 1
                if quiet == _QUIET_ROUNDS:
                    return f"nothing new was proposed in {_QUIET_ROUNDS} rounds"
                if proposals:
                    self._race_and_accept(proposals)
        except BudgetSpent as spent:
            return str(spent)
        raise AssertionError("unreachable: count has no end")

    # ── the phases of a round ────────────────────────────────────────────────────────────────────

    def _plan(self) -> RoundPlan:
        """What this round may use. It depends on the clock, so a replay takes it from the store."""
        store, setting = self._runtime.store, self._setting
        calls_left = store.calls_left(setting.run, self.round)
        if calls_left is None:
            calls_left = self._meter.calls_left(first_round=self.round == 1)
            store.put_calls_left(setting.run, self.round, calls_left)
        return RoundPlan.of(calls_left, len(setting.proposers), len(setting.dev))

    def _history(self, plan: RoundPlan) -> History:
        """The run so far, with feedback from a fresh minibatch if any proposer reads it."""
        setting = self._setting
        history = History(
            round=self.round,
            incumbent=self.incumbent,
            dev_traces=self.dev_traces,
            train=setting.train,
            metric=setting.metric,
            allowance_calls=plan.allowance,
            calibrates=setting.calibrates,
            candidates=tuple(self.rows),
        )
        if any(proposer.wants_feedback for proposer in setting.proposers):
            self._begin("feedback")
            failures, feedback = self._drive(self._feed_back())
            history = replace(history, failures=failures, feedback=feedback)
        return history

    def _feed_back(self) -> Flow[tuple[list[Trace], list[Feedback]]]:
        chosen = self._setting.generator("minibatch", self.round).permutation(len(self._setting.train))[:_MINIBATCH]
        minibatch = [self._setting.train[int(index)] for index in chosen]
        traces = yield from forward(self.incumbent, minibatch, self._setting.metric)
        failures = [trace for trace in traces if trace.score < 1.0]
        feedback = yield from backward(self.incumbent, failures)
        return failures, feedback

    def _propose(self, history: History, plan: RoundPlan) -> list[_Edited]:
        """What every proposer proposes, in their order, each with its program and its loss on train."""
        self._begin("proposing")
        proposers = self._setting.proposers
        flows = [
            proposer.propose(history, self._setting.generator(proposer.name, self.round)) for proposer in proposers
        ]
        proposed = self._drive(together(flows))
        edited = [
            _Edited(
                proposer.name,
                proposal.note,
                self.incumbent.replace(proposal.edits),
                bias_parameter(self.incumbent) in proposal.edits,
            )
            for proposer, proposals in zip(proposers, proposed, strict=True)
            for proposal in proposals
        ]
        return (
            self._drive(together([self._calibrated(item, plan) for item in edited]))
            if self._setting.calibrates
            else edited
        )

    def _calibrated(self, edited: _Edited, plan: RoundPlan) -> Flow[_Edited]:
        """Fit the bias that goes with an edit, unless the edit is a bias, and note the loss on the same examples."""
        examples = unseen(edited.program, self._setting.train)[: plan.calibration]
        fitted = yield from calibrated(edited.program, examples, self._setting.metric)
        return replace(edited, program=edited.program if edited.has_bias else fitted.program, train_loss=fitted.loss)

    def _new(self, edited: Sequence[_Edited]) -> list[_Edited]:
        """Edits that give a program this run has not seen yet."""
        new = []
        for item in edited:
            if item.program.fingerprint not in self._seen:
                self._seen.add(item.program.fingerprint)
                new.append(item)
        return new

    def _screened(self, edited: Sequence[_Edited], plan: RoundPlan) -> list[_Edited]:
        """As many as may race: those with the least loss on train, or the first where none was measured."""
        ranked = sorted(range(len(edited)), key=lambda index: (edited[index].train_loss, index))
        kept = set(ranked[: plan.racers])
        for index, item in enumerate(edited):
            if index not in kept:
                self._record(item, self.incumbent, None, None)
        return [edited[index] for index in sorted(kept)]

    def _race_and_accept(self, edited: Sequence[_Edited]) -> None:
        self._begin("racing")
        setting = self._setting
        generator = setting.generator("race", self.round)
        before = tuple(trace.score for trace in self.dev_traces)
        bar = Bar(before, level_of(self.round, len(edited)))
        programs = [item.program for item in edited]
        runners = self._drive(race(programs, setting.dev, self._forward, _score, DEFAULT, generator, bar))
        winner = best_finished(runners)
        verdict = None
        parent = self.incumbent
        if winner is not None:
            verdict = judge(runners[winner].scores, before, self.round, len(runners), generator)
            if verdict.accepted:
                self.incumbent, self.dev_traces = runners[winner].program, runners[winner].traces
        for index, (item, runner) in enumerate(zip(edited, runners, strict=True)):
            self._record(item, parent, runner, verdict if index == winner else None)

    def _forward(self, program: Program, examples: Sequence[Example]) -> Flow[list[Trace]]:
        return forward(program, examples, self._setting.metric)

    def _record(self, edited: _Edited, parent: Program, runner: Runner | None, verdict: Verdict | None) -> None:
        row = CandidateRow(
            number=len(self.rows) + 1,
            round=self.round,
            proposer=edited.proposer,
            note=edited.note,
            parent=parent.fingerprint,
            program=edited.program.fingerprint,
            examples=len(runner.scores) if runner else 0,
            score=mean(runner.scores) if runner else 0.0,
            p_value=verdict.p_value if verdict else None,
            level=verdict.level if verdict else None,
            accepted=verdict.accepted if verdict else False,
        )
        store = self._runtime.store
        store.put_program(row.program, edited.program.to_mapping())
        store.put_candidate(self._setting.run, row)
        self.rows.append(row)
        self._watcher.candidate(row)

    # ── driving ──────────────────────────────────────────────────────────────────────────────────

    def _begin(self, phase: str) -> None:
        self._watcher.phase(self.round, phase, mean([trace.score for trace in self.dev_traces]))

    def _drive(self, flow: Flow[T]) -> T:
        return self._runtime.run(flow, run=self._setting.run, allow=self._meter.allow, watch=self._watch)

    def _watch(self, usage: Usage, open_requests: int) -> None:
        self._watcher.progress(usage, open_requests, self._meter)


def _score(trace: Trace) -> float:
    return trace.score
