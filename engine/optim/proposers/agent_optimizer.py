"""agent_optimizer: functions added, revised or removed, as failed executions suggest (AgentOptimizer; Zhang 2024).

Functions are learnable weights: the model is shown the functions there are and executions that failed, chooses what to
do (add, revise or remove) and to which function, and writes its code. The choices are closed, drawn as likely as the
model holds them; code is decoded under a grammar, and tried on the failures in the sandbox before it is proposed.

Deviations: one action a play, not several. Roll-back and early stop are the loop's: a change that does not win is not
accepted, the next play starts from the incumbent again, and a run ends when its budget does or nothing new comes. As
there, what was tried without success is told.
"""

from collections.abc import Sequence

from numpy.random import Generator

from engine.feedback.packing import Part, packed
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.optim.tooling.coding import coded, revision, solution, tool
from engine.optim.tooling.toolmaking import (
    Code,
    Problem,
    code_in,
    different,
    gave,
    name_of,
    problems,
    row_calls,
)
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.layers.predict import softmax
from engine.program.tools.spec import described
from engine.records import Chat, Message, Score

_ROWS = 24
_TRIED = 6  # failures on which a function is tried
_SAMPLES = 3
_SHOWN = 3
_TURN_CHARS = 300
_SYSTEM = "You improve the functions that a program may call."


class AgentOptimizerProposer:
    """Proposes functions added or revised, each tried on failures, or one removed."""

    name = "agent_optimizer"
    prior = 0.03

    def suits(self, program: Program) -> bool:
        """Whether code is a weight."""
        return bool(code_in(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Up to three sources after one action, those first that solve most failures."""
        possible = code_in(history.program)
        place = possible[int(rng.integers(len(possible)))]
        draws = rng.random(2)
        (writer,) = rng.spawn(1)
        found = yield from problems(history, place, _rows(history, place))
        failed = [row for row in found if row.trace.score < 1.0]
        if not failed:
            return []
        parts = _parts(history, place, failed)
        names = [function.name for function in place.functions]
        actions = ["add", *(["revise"] if names else []), *(["remove"] if len(names) > 1 else [])]
        action = yield from _chosen(history, parts, "What helps most: to {} a function?", actions, draws[0])
        if action == "add":
            form = tool(parts) if place.source.functions else solution(parts, place.reads)
            codes = yield from coded(history, form, _SAMPLES, writer)
            named = [(code, name_of(code)) for code in codes if name_of(code) not in place.taken]
            changes = [
                (code, place.revised(name, code), "revised") if name in names else (code, place.added(code), "added")
                for code, name in named
            ]
            return (yield from _tried(history, place, failed, changes))
        name = yield from _chosen(history, parts, f"Which function would you {action}: {{}}?", names, draws[1])
        if action == "remove":
            value = place.without(name)
            return [Proposal({place.name: value}, f"{place.name}: {name} removed")] if place.takes(value) else []
        code = next(function.code for function in place.functions if function.name == name)
        codes = yield from coded(history, revision(parts, code), _SAMPLES, writer)
        revised = [(new, place.revised(name, new), "revised") for new in codes]
        return (yield from _tried(history, place, failed, revised))


def _chosen(history: History, parts: Sequence[Part], question: str, options: Sequence[str], draw: float) -> Flow[str]:
    """One of a few options, drawn as likely as the optimizer's model holds it. A single one is not asked for."""
    if len(options) == 1:
        return options[0]
    asked = Part(question.format(", ".join(options[:-1]) + f" or {options[-1]}"))

    def render(kept: Sequence[Part]) -> Chat:
        text = "\n".join(part.text for part in kept)
        return Chat((Message("system", _SYSTEM), Message("user", text)))

    prompt = yield from packed((*parts, asked), history.room_tokens, render)
    completion = yield from ask(Score(prompt, tuple(options), role="optimizer"))
    if completion.loglikelihoods is None:
        return options[0]
    reached = 0.0
    for option, share in zip(options, softmax(completion.loglikelihoods), strict=True):
        reached += share
        if draw < reached:
            return option
    return options[-1]


def _tried(
    history: History, place: Code, failed: Sequence[Problem], changes: Sequence[tuple[str, str, str]]
) -> Flow[list[Proposal]]:
    """Proposals for (code, the source with it, what was done), without those that fail on every failure."""
    usable = [change for change in changes if place.takes(change[1])]
    rows = failed[:_TRIED]
    results = yield from together([gave(history, place, code, value, rows) for code, value, _ in usable])
    worked = {
        code: (value, done, found)
        for (code, value, done), found in zip(usable, results, strict=True)
        if any(one.error is None for one in found)
    }
    unlike = different(place, {code: found for code, (_, _, found) in worked.items()})
    ranked = sorted(unlike, key=lambda code: -sum(one.score for one in worked[code][2]))
    return [
        Proposal({place.name: worked[code][0]}, f"{place.name}: {name_of(code)} {worked[code][1]}") for code in ranked
    ]


def _parts(history: History, place: Code, failed: Sequence[Problem]) -> list[Part]:
    """What there is to call, what failed, and what was tried before without success; the first failure tells most."""
    listed = (
        described([function.spec for function in place.functions]) if place.source.functions else place.source.value
    )
    parts = [Part(f"Functions:\n{listed}\n")] if listed else []
    tried = [
        one.note for one in history.by(AgentOptimizerProposer.name) if not one.accepted and place.name in one.edits
    ]
    parts += [Part(f"Tried before without success: {note}.\n", 0.1) for note in tried[-_SHOWN:]]
    for number, row in enumerate(failed[:_SHOWN]):
        prediction = row.trace.prediction
        turns = [turn for step in row.trace.steps for turn in step.steps]
        done = " ".join(" ".join(text for text in turn.outputs.values() if text) for turn in turns)[:_TURN_CHARS]
        came = prediction.error or prediction.text[:_TURN_CHARS]
        said = f"{done}\n" if done else ""
        parts.append(Part(f"{row.text}\n{said}The program gave: {came}\n", 1 / (number + 1)))
    return parts


def _rows(history: History, place: Code) -> int:
    """How many rows the allowance pays for, besides two choices, the code, and trying it."""
    room = history.allowance_calls - 2 - _SAMPLES * (1 + _TRIED * row_calls(history, place))
    return max(0, min(_ROWS, room // max(1, estimate(history.program, {}).calls)))
