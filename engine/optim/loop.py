"""The loop: how one run turns a program into a better one.

    until the budget is spent
        allocate       a bandit says which proposers play this round
        propose        they edit the incumbent, or another parent of theirs, side by side
        screen         every edited program is measured on train, with the bias that suits it; the best may race
        race           they run on dev, block by block
        accept         the winner replaces the incumbent if it passes the test

Everything that decides is either computed from stored calls or committed to the store (what is left of a budget, which
depends on the clock), so a resumed run is a replay that asks the store instead of the model until it reaches the point
where it was cut. A phase that the budget cuts short is dropped whole, whatever had finished of it; that makes the end
of a run independent of the order in which calls finish.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from engine.errors import BudgetSpent, ContentError
from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.flows import Flow, observed, together
from engine.inference.runtime import Runtime
from engine.inference.usage import Usage
from engine.optim.acceptance import Verdict, judge, levels_of
from engine.optim.allocation import Play, chosen
from engine.optim.budgeting import Meter, RoundPlan
from engine.optim.calibration import biased
from engine.optim.history import Candidate, History, Proposal, Proposer
from engine.optim.pareto import front
from engine.optim.pricing import price, rows_worth
from engine.optim.racing import DEFAULT, Bar, Runner, best_finished, race
from engine.optim.screening import measured, probe
from engine.program.graph import Program
from engine.program.layer import calls_of
from engine.records import Completion, Example, Trace
from engine.statistics import mean
from engine.store.keys import seed_of
from engine.store.rows import CandidateRow
from engine.tasks.budget import Unit

T = TypeVar("T")

_QUIET_TURNS = 3  # of every proposer, on average
_FEWEST_ROWS = 16  # that a proposal is measured on, however dear it is
_RACED = 0.7  # of what is left of a budget, at most, goes into a race: prices are estimates
_OF_OTHERS = 0.5  # a race lets most of those go early that are not its best
_MOMENT = 0.001  # that the baseline takes at least, in any unit
_ROOM_TOKENS = 1536  # of an optimizer's prompt, where its context is no shorter: longer ones take long and help little


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
    """What one run works on; the same setting and seed give the same run.

    An edit is accepted only if it gains at least `min_gain` in the mean value on dev. `embeds` says that nearest
    demonstrations can be found.
    """

    run: str
    program: Program
    train: Sequence[Example]
    dev: Sequence[Example]
    objective: Objective
    proposers: Sequence[Proposer]
    seed: int
    min_gain: float = 0.0
    embeds: bool = False

    def generator(self, *names: str | int) -> Generator:
        """A random generator for one purpose, independent of all others."""
        return np.random.default_rng(seed_of(self.seed, *names))

    @property
    def calibrates(self) -> bool:
        """Whether biases are weights in this run."""
        return any(proposer.name == "bias" for proposer in self.proposers)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `best` is the baseline where nothing beat it.

    `front` are the candidates which no other beats on dev in value, tokens and seconds at once.
    """

    best: Program
    baseline_dev: Sequence[Trace]
    best_dev: Sequence[Trace]
    candidates: Sequence[CandidateRow]
    plays: Sequence[Play]
    front: Sequence[Candidate]
    rounds: int
    ended: str


def optimize(setting: Setting, runtime: Runtime, meter: Meter, watcher: Watcher) -> Outcome:
    """Run the loop until the budget is spent, dev is solved, or the proposers run dry.

    Raises:
        ContentError: no dev example could be answered at all.
    """
    loop = _Loop(setting, runtime, meter, watcher)
    loop.evaluate_baseline()
    ended = loop.improve()
    best, baseline = loop.incumbent, loop.candidates[0]
    raced = [candidate for candidate in loop.candidates if len(candidate.traces) == len(setting.dev)]
    return Outcome(
        best.program, baseline.traces, best.traces, tuple(loop.rows), tuple(loop.plays),
        tuple(front(raced, setting.objective)), loop.round, ended,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Edited:
    """A proposal put into effect, and its loss on train. `calls` and `tokens` are those of measuring it."""

    player: int
    proposal: Proposal
    program: Program
    parent: Candidate
    train_loss: float
    calls: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one proposer gave in one round, and what it asked for."""

    proposer: Proposer
    proposals: Sequence[Proposal]
    calls: int
    tokens: int


class _Loop:
    """The state of a running loop."""

    def __init__(self, setting: Setting, runtime: Runtime, meter: Meter, watcher: Watcher) -> None:
        self._setting, self._runtime, self._meter, self._watcher = setting, runtime, meter, watcher
        self._room = min(_ROOM_TOKENS, runtime.backend("optimizer").context * 3 // 4)
        self.incumbent = Candidate(0, setting.program, ())
        self.candidates = [self.incumbent]
        self.rows: list[CandidateRow] = []
        self.plays: list[Play] = []
        self.round = 0
        self._seen = {setting.program.fingerprint}
        self._price_of_dev = 0.0  # in the budget's unit, as the program was given

    def evaluate_baseline(self) -> None:
        """Score the program as it was given; this counts towards the budget, but is done whatever the budget is."""
        self._begin("baseline")
        baseline = self._setting.objective.run(self.incumbent.program, self._setting.dev)
        traces = self._runtime.run(baseline, run=self._setting.run, watch=self._watch)
        if all(trace.prediction.error for trace in traces):
            reason = traces[0].prediction.error
            raise ContentError(f"not one dev example could be answered; the first failed with: {reason}")
        self.incumbent = Candidate(0, self.incumbent.program, tuple(traces))
        self.candidates = [self.incumbent]
        unit = self._meter.budget.unit
        self._price_of_dev = self._read(f"{unit} of the baseline", lambda: self._paid(unit, traces))

    def _paid(self, unit: Unit, traces: Sequence[Trace]) -> float:
        """What the baseline takes of the budget. What the store answered counts with the time that it took then."""
        waited = max(trace.seconds for trace in traces) if unit == "seconds" else 0.0
        return max(_MOMENT, self._meter.spent, waited)

    def improve(self) -> str:
        """Round after round; why it ended."""
        quiet = 0
        try:
            for self.round in itertools.count(1):
                if self._solved():
                    return "dev is solved"
                suited = [one for one in self._setting.proposers if one.suits(self.incumbent.program)]
                if not suited:
                    return "no proposer has anything to edit in this program"
                plan = self._plan(len(suited))
                turns = self._propose(suited, plan)
                edited = self._screen(turns, plan)
                quiet = 0 if edited else quiet + len(turns)
                if quiet >= _QUIET_TURNS * len(suited):
                    return f"nothing new was proposed in {quiet} turns"
                self._race_and_accept(turns, edited, plan)
        except BudgetSpent as spent:
            return str(spent)
        raise AssertionError("unreachable: count has no end")

    def _solved(self) -> bool:
        traces = self.incumbent.traces
        return all(trace.score >= 1.0 for trace in traces) and mean_loss(traces) < 0.01

    # ── the phases of a round ────────────────────────────────────────────────────────────────────

    def _plan(self, proposers: int) -> RoundPlan:
        """What this round may use."""
        calls_left = self._read(
            "calls left", lambda: self._meter.calls_left(self._price_of_dev if self.round == 1 else None)
        )
        return RoundPlan.of(int(calls_left), proposers, len(self._setting.dev))

    def _read(self, name: str, read: Callable[[], float]) -> float:
        """A figure that depends on the clock: a replay takes it from the store."""
        return self._runtime.store.reading(self._setting.run, self.round, name, read)

    def _history(self, plan: RoundPlan) -> History:
        setting = self._setting
        order = setting.generator("minibatch", self.round).permutation(len(setting.train))
        return History(
            round=self.round,
            incumbent=self.incumbent,
            candidates=tuple(self.candidates),
            train=setting.train,
            drawn=tuple(setting.train[int(index)] for index in order),
            objective=setting.objective,
            allowance_calls=plan.allowance,
            room_tokens=self._room,
            calibrates=setting.calibrates,
            embeds=setting.embeds,
        )

    def _propose(self, suited: Sequence[Proposer], plan: RoundPlan) -> list[_Turn]:
        """What the proposers that play this round propose, in their order."""
        self._begin("proposing")
        history = self._history(plan)
        generator = self._setting.generator("allocation", self.round)
        playing = chosen(suited, self.plays, self.round, plan.players, generator)
        done: list[list[Completion]] = [[] for _ in playing]
        flows = [
            observed(proposer.propose(history, self._setting.generator(proposer.name, self.round)), calls)
            for proposer, calls in zip(playing, done, strict=True)
        ]
        proposed = self._drive(together(flows))
        return [
            _Turn(proposer, proposals, len(calls), _tokens(calls))
            for proposer, proposals, calls in zip(playing, proposed, done, strict=True)
        ]

    def _screen(self, turns: Sequence[_Turn], plan: RoundPlan) -> list[_Edited]:
        """Proposals put into effect and measured on train; those that give a program this run has not seen yet."""
        self._begin("screening")
        flows = [
            self._measured(player, proposal, plan) for player, turn in enumerate(turns) for proposal in turn.proposals
        ]
        new = []
        for item in self._drive(together(flows)):
            if item.program.fingerprint not in self._seen:
                self._seen.add(item.program.fingerprint)
                new.append(item)
        return new

    def _measured(self, player: int, proposal: Proposal, plan: RoundPlan) -> Flow[_Edited]:
        """An edit with the biases that suit it, unless it sets one, and its loss on train."""
        setting = self._setting
        parent = proposal.parent or self.incumbent
        program = parent.program.replace(proposal.edits)
        rows = max(_FEWEST_ROWS, int(plan.screening / price(program, setting.train)))
        examples = probe(program, setting.train, min(plan.screening, rows))
        calls: list[Completion] = []
        found = yield from observed(measured(program, examples, setting.objective, setting.calibrates), calls)
        if biased(program).keys().isdisjoint(proposal.edits):
            program = found.program
        return _Edited(player, proposal, program, parent, found.loss, len(calls), _tokens(calls))

    def _race_and_accept(self, turns: Sequence[_Turn], edited: Sequence[_Edited], plan: RoundPlan) -> None:
        """Race the best of a round; note how each of its candidates and each of its proposers fared."""
        racing = self._racers(edited, plan)
        runners: list[Runner] = []
        verdict: Verdict | None = None
        winner: int | None = None
        before = self.incumbent
        if racing:
            self._begin("racing")
            setting = self._setting
            generator = setting.generator("race", self.round)
            runners = self._drive(self._race([item.program for item in racing], generator))
            winner = best_finished(runners)
            if winner is not None:
                level = levels_of(self.round, len(runners))[winner]
                verdict = self._judged(runners[winner], level, generator)
        ran = {id(item): runner for item, runner in zip(racing, runners, strict=True)}
        for item in edited:
            runner = ran.get(id(item))
            won = runner is not None and winner is not None and runner is runners[winner]
            self._record(turns[item.player].proposer.name, item, runner, verdict if won else None, before)
        self.plays += [self._play(turn, number, edited, ran) for number, turn in enumerate(turns)]

    def _racers(self, edited: Sequence[_Edited], plan: RoundPlan) -> list[_Edited]:
        """Those with the least loss on train that can be paid, that first; where none can, the cheapest."""
        if not edited:
            return []
        prices = [self._worth(item.program) / self._worth(self.candidates[0].program) for item in edited]
        left = _RACED * self._read("budget left", lambda: self._meter.left) / self._price_of_dev
        racing: list[int] = []
        for index in sorted(range(len(edited)), key=lambda index: (edited[index].train_loss, index)):
            dear = prices[index] * (_OF_OTHERS if racing else 1.0)
            if dear <= left and len(racing) < plan.racers:
                racing.append(index)
                left -= dear
        racing = racing or [min(range(len(edited)), key=lambda index: (prices[index], edited[index].train_loss))]
        return [edited[index] for index in racing]

    def _worth(self, program: Program) -> float:
        return rows_worth(program, self._setting.train, self._meter.budget.unit)

    def _race(self, programs: Sequence[Program], generator: Generator) -> Flow[list[Runner]]:
        """A race on dev; whoever cannot beat the program as given any more drops out."""
        dev, objective = self._setting.dev, self._setting.objective
        bar = Bar(tuple(objective.values(self.candidates[0].traces)), levels_of(self.round, len(programs)))
        least, most = objective.least, objective.most
        return race(programs, dev, objective.run, objective.value, DEFAULT, generator, bar, least=least, most=most)

    def _judged(self, runner: Runner, level: float, generator: Generator) -> Verdict:
        values = self._setting.objective.values
        baseline, incumbent = values(self.candidates[0].traces), values(self.incumbent.traces)
        least = self._setting.min_gain
        return judge(values(runner.traces), baseline, incumbent, level, generator, least)

    def _record(
        self, proposer: str, item: _Edited, runner: Runner | None, verdict: Verdict | None, before: Candidate
    ) -> None:
        """Enter a candidate into the run; one that is accepted is the incumbent from now on."""
        objective = self._setting.objective
        candidate = Candidate(
            number=len(self.candidates),
            program=item.program,
            traces=runner.traces if runner else (),
            round=self.round,
            proposer=proposer,
            note=item.proposal.note,
            parent=item.parent.number,
            edits=_changed(item.parent.program, item.program),
            train_loss=item.train_loss,
            accepted=verdict is not None and verdict.accepted,
            gain=_gain(objective, runner.traces, before.traces) if runner else 0.0,
        )
        self.candidates.append(candidate)
        if candidate.accepted:
            self.incumbent = candidate
        row = CandidateRow(
            number=candidate.number,
            round=self.round,
            proposer=proposer,
            note=candidate.note,
            parent=item.parent.program.fingerprint,
            program=item.program.fingerprint,
            examples=len(candidate.traces),
            score=mean([trace.score for trace in candidate.traces]),
            p_value=verdict.p_value if verdict else None,
            level=verdict.level if verdict else None,
            accepted=candidate.accepted,
        )
        store = self._runtime.store
        store.put_program(row.program, item.program.to_mapping())
        store.put_candidate(self._setting.run, row)
        self.rows.append(row)
        self._watcher.candidate(row)

    def _play(self, turn: _Turn, player: int, edited: Sequence[_Edited], ran: Mapping[int, Runner]) -> Play:
        """What a proposer's turn cost and won."""
        own = [item for item in edited if item.player == player]
        first = len(self.candidates) - len(edited)
        entered = [self.candidates[first + index] for index, item in enumerate(edited) if item.player == player]
        traces = [trace for item in own if id(item) in ran for trace in ran[id(item)].traces]
        return Play(
            round=self.round,
            proposer=turn.proposer.name,
            proposals=len(turn.proposals),
            raced=sum(bool(candidate.traces) for candidate in entered),
            accepted=sum(candidate.accepted for candidate in entered),
            gain=max((candidate.gain for candidate in entered if candidate.traces), default=0.0),
            calls=turn.calls + sum(item.calls for item in own) + sum(map(_calls_of, traces)),
            tokens=turn.tokens + sum(item.tokens for item in own) + sum(trace.tokens for trace in traces),
        )

    # ── driving ──────────────────────────────────────────────────────────────────────────────────

    def _begin(self, phase: str) -> None:
        self._watcher.phase(self.round, phase, mean([trace.score for trace in self.incumbent.traces]))

    def _drive(self, flow: Flow[T]) -> T:
        return self._runtime.run(flow, run=self._setting.run, allow=self._meter.allow, watch=self._watch)

    def _watch(self, usage: Usage, open_requests: int) -> None:
        self._watcher.progress(usage, open_requests, self._meter)


def _changed(parent: Program, program: Program) -> dict[str, Any]:
    """The parameters in which a program differs from its parent, with their new values."""
    before = parent.parameters
    return {
        name: parameter.value
        for name, parameter in program.parameters.items()
        if name not in before or before[name].value != parameter.value
    }


def _gain(objective: Objective, traces: Sequence[Trace], before: Sequence[Trace]) -> float:
    """By how much the mean value of some executions is above that of earlier ones of the same examples."""
    values = {trace.example.id: objective.value(trace) for trace in before}
    return mean([objective.value(trace) - values[trace.example.id] for trace in traces])


def _tokens(completions: Sequence[Completion]) -> int:
    return sum(completion.prompt_tokens + completion.generated_tokens for completion in completions)


def _calls_of(trace: Trace) -> int:
    return sum(len(calls_of(step)) for step in trace.steps)
