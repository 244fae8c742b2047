"""joint: instructions, sets of demonstrations and settings searched together (MIPROv2; Opsahl-Ong 2024, section 4.3).

Each of them has a few values to take, and a tree-structured Parzen estimator (TPE; Bergstra 2011; Optuna's, by
ask-and-tell) learns from the trials so far which go well together. Instructions are those of the run's candidates, and
a few that the optimizer's model writes for a digest of the program and its examples (section 4.1); sets are those of
the best candidates and new ones. A trial is measured on a few train rows; the best trials then on more.

Deviations: a trial's figure is the cross-entropy or likelihood on always the same rows instead of the metric on a
minibatch drawn anew; trials are asked for in batches, which are computed together; the estimator is made anew for every
round, from the losses of the candidates that its space can express; and the digest is not written by a model.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.feedback.static.digest import digest_of
from engine.flows import Flow
from engine.optim.demonstrations import Solved, dealt, described, drawn, from_both, needs_executions, shown
from engine.optim.history import Candidate, History, Proposal
from engine.optim.screening import calls_each, losses
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.worked import OPEN
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.graph import Program
from engine.program.parameters import Choice
from engine.program.places import place_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

_SIZES = (16, 48, 32, 8)
_NEW_SETS, _OLD_SETS, _TEXTS = 12, 4, 5
_WRITTEN = 3  # new instructions in a round
_MOST_CHARS, _DIGEST_CHARS = 300, 1200
_ROWS = 24
_FEWEST_TRIALS, _MOST_TRIALS = 8, 64
_BATCH = 4
_PROPOSED = 4
_OF_SETS = ("demos", "nearest", "order")

Space = Mapping[str, Sequence[Mapping[str, Any]]]  # what can be decided, and the edits that each decision means


class JointProposer:
    """Proposes the four best combinations found."""

    name = "joint"
    prior = 0.25

    def suits(self, program: Program) -> bool:
        """Whether there is something to combine."""
        return bool(shown(program)) or len(_choices(program)) > 1

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Combinations that are not the incumbent, measured within the allowance."""
        spare = history.allowance_calls // 4 if needs_executions(history.program) else 0
        instructions = yield from _instructions(history, rng.spawn(1)[0])
        solved = yield from from_both(history, spare)
        space = _space(history, instructions, solved, rng)
        allowed = (history.allowance_calls - spare - _WRITTEN) // calls_each(history.program, history.calibrates)
        rows = min(_ROWS, allowed // _FEWEST_TRIALS)
        if not space or not rows:
            return []
        found = yield from _searched(history, space, min(_MOST_TRIALS, allowed // rows), rows, rng)
        return [Proposal(edits, f"together: {described(edits)}") for edits in found[:_PROPOSED]]


def _instructions(history: History, rng: Generator) -> Flow[dict[str, list[str]]]:
    """New values for one of the texts, from what the program is for."""
    texts = texts_of(history.program)
    if not texts:
        return {}
    name = next_text(history, JointProposer.name, list(texts), rng)
    place = place_of(history.program, name).name
    digest = digest_of(history.program, history.drawn, _DIGEST_CHARS)
    brief = Brief(
        "Programs with a few of their examples, and the best instruction for each.",
        (Part(f"{digest}\nBest instruction for {place}:"),),
        _MOST_CHARS,
        shown=tuple((f"{task.pairs}\nBest instruction for {place}:", task.instruction) for task in OPEN),
        openings=openings_like(texts[name].value),
        plain=True,
    )
    written_now = yield from written(history, brief, _WRITTEN, rng)
    return {name: [text for text in written_now if fits(texts[name], text)]}


def _space(
    history: History, instructions: Mapping[str, Sequence[str]], solved: Sequence[Solved], rng: Generator
) -> Space:
    """What there is to decide: the texts, the sets, and the choices; whatever has one value alone is left out."""
    program = history.program
    screened = [one for one in history.candidates if one.train_loss is not None]
    best = [history.incumbent, *sorted(screened, key=lambda one: (one.train_loss, one.number))]
    space: dict[str, list[Mapping[str, Any]]] = {}
    for name in texts_of(program):
        known = _different([{name: one.program.parameters[name].value} for one in best])[:_TEXTS]
        space[name] = _different([*known, *({name: text} for text in instructions.get(name, ()))])
    old = _different([_sets_of(one.program) for one in best])[: 1 + _OLD_SETS]
    new = [drawn(program, solved, _SIZES[number % len(_SIZES)], rng) for number in range(_NEW_SETS if solved else 0)]
    space["demos"] = _different([*old, *new])
    for name, choice in _choices(program).items():
        space[name] = [{name: option} for option in choice.options]
    return {name: options for name, options in space.items() if len(options) > 1}


def _searched(history: History, space: Space, trials: int, rows: int, rng: Generator) -> Flow[list[Mapping[str, Any]]]:
    """The edits that were tried, as many as `trials` at most, best first.

    The first third are dealt out evenly; then the estimator decides. Where it comes back to one it asks for nothing.
    """
    study, distributions = _study(history, space, trials // 3, rng)
    known: dict[tuple[int, ...], float] = {}
    for _ in range(trials):
        asked = [study.ask(distributions) for _ in range(_BATCH)]
        places = [tuple(trial.params[name] for name in space) for trial in asked]
        new = list(dict.fromkeys(place for place in places if place not in known))
        if len(known) + len(new) > trials:
            break
        found = yield from losses(history, [_edits(history.program, space, place) for place in new], rows)
        known |= dict(zip(new, found, strict=True))
        for trial, place in zip(asked, places, strict=True):
            study.tell(trial, known[place])
    ordered = sorted(known, key=lambda place: known[place])
    return [edits for place in ordered if (edits := _edits(history.program, space, place))]


def _study(
    history: History, space: Space, dealt_out: int, rng: Generator
) -> "tuple[Study, dict[str, BaseDistribution]]":
    """An estimator over the space that knows how the candidates in it fared on train, and what is to be tried first."""
    import optuna  # here, because it takes half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), n_startup_trials=dealt_out)
    study = optuna.create_study(sampler=sampler)
    distributions: dict[str, BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(range(len(options))) for name, options in space.items()
    }
    for candidate in history.candidates:
        place = {name: _place(candidate, options) for name, options in space.items()}
        if candidate.train_loss is not None and None not in place.values():
            trial = optuna.trial.create_trial(params=place, distributions=distributions, value=candidate.train_loss)
            study.add_trial(trial)
    decks = {name: dealt(range(len(options)), rng) for name, options in space.items()}
    for _ in range(dealt_out):
        study.enqueue_trial({name: next(deck) for name, deck in decks.items()})
    return study, distributions


def _place(candidate: Candidate, options: Sequence[Mapping[str, Any]]) -> int | None:
    """Which of the options a candidate has taken; None where it has another value."""
    parameters = candidate.program.parameters
    for place, edits in enumerate(options):
        if all(name in parameters and parameters[name].value == value for name, value in edits.items()):
            return place
    return None


def _edits(program: Program, space: Space, place: Sequence[int]) -> dict[str, Any]:
    """What the decisions change in the program."""
    chosen = [options[taken] for options, taken in zip(space.values(), place, strict=True)]
    known = program.parameters
    return {
        name: value
        for edits in chosen
        for name, value in edits.items()
        if name not in known or known[name].value != value
    }


def _sets_of(program: Program) -> dict[str, Any]:
    """What a program shows, as edits."""
    parameters = program.parameters
    return {
        f"{place.name}.{name}": parameters[f"{place.name}.{name}"].value
        for place in shown(program)
        for name in _OF_SETS
        if f"{place.name}.{name}" in parameters
    }


def _choices(program: Program) -> dict[str, Choice]:
    """The choices, but for the order of a pool, which belongs to it."""
    return {
        name: value
        for name, value in program.parameters.items()
        if isinstance(value, Choice) and not name.endswith(".order")
    }


def _different(edits: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each once, in their order."""
    return [one for number, one in enumerate(edits) if one not in edits[:number]]
