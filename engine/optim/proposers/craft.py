"""craft: functions made from solved train rows, generalized, tried on other rows, and kept where they solve them.

CRAFT (Yuan 2024): a tool is written as the solution of a problem, abstracted into a function of general use with a
docstring, validated by solving the problem with it, and dropped where another one is the same. Here a problem is a few
train rows that the program gets wrong. Whether a function solves them is seen by running it in the sandbox, on these
rows and on others that it was not made from; the more general version replaces the first only where it solves as many.

Deviations: functions are not looked up for each question but become the program's own source: of a `code` layer, or of
an agent, whose prompt lists all of them; two are the same by what they do and by their normalized source, not by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.tooling.coding import abstraction, coded, solution, tool
from engine.optim.tooling.toolmaking import (
    Code,
    Gave,
    Problem,
    code_in,
    different,
    gave,
    name_of,
    problems,
    row_calls,
)
from engine.optim.words.filling import Form
from engine.program.estimate import estimate
from engine.program.graph import Program
from engine.program.tools.written import read_functions
from engine.statistics import mean

_GROUPS, _EACH = 4, 3  # problems, and rows of each
_SAMPLES = 2
_ROWS = 16
_PROPOSED = 3


@dataclass(frozen=True, slots=True)
class _Tool:
    """A function, what it gives on every row, and how much it solves of those that it was not made from."""

    code: str
    results: tuple[Gave, ...]
    held_out: float


class CraftProposer:
    """Proposes up to three functions, for an agent all of them together first."""

    name = "craft"
    prior = 0.05

    def suits(self, program: Program) -> bool:
        """Whether code is a weight."""
        return bool(code_in(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """Sources with the functions that solve most of the rows they were not made from."""
        possible = code_in(history.program)
        place = possible[int(rng.integers(len(possible)))]
        writers = rng.spawn(_GROUPS)
        found = yield from problems(history, place, _rows(history, place))
        wrong = [row for row in found if row.trace.score < 1.0]
        groups = [wrong[number::_GROUPS][:_EACH] for number in range(min(_GROUPS, len(wrong)))]
        made = yield from together(
            [
                _made(history, place, group, found, writer)
                for group, writer in zip(groups, writers[: len(groups)], strict=True)
            ]
        )
        ranked = sorted((one for one in made if one), key=lambda one: one.held_out)
        by_code = {one.code: one for one in ranked}  # of one code the best
        unlike = different(place, {code: by_code[code].results for code in reversed(by_code)})
        return _proposals(place, [by_code[code] for code in unlike][:_PROPOSED])


def _made(
    history: History, place: Code, group: Sequence[Problem], rows: Sequence[Problem], rng: Generator
) -> Flow[_Tool | None]:
    """A function that solves at least half of a group, and some of the other rows; the general one where it can."""
    first, second = rng.spawn(2)
    written = [
        code for code in (yield from coded(history, _solution(place, group), _SAMPLES, first)) if _fits(place, code)
    ]
    tried = yield from together([gave(history, place, code, _value(place, code), group) for code in written])
    proven = [code for code, results in zip(written, tried, strict=True) if mean([one.score for one in results]) >= 0.5]
    if not proven:
        return None
    general = yield from coded(history, _general(place, proven[0]), 1, second)
    versions = [*(code for code in general if _fits(place, code)), proven[0]]  # of equals the general one
    results = yield from together([gave(history, place, code, _value(place, code), rows) for code in versions])
    best = max(range(len(versions)), key=lambda number: (sum(one.score for one in results[number]), -number))
    others = [number for number, row in enumerate(rows) if row not in group]
    held_out = mean([results[best][number].score for number in others])
    before = 0.0 if place.source.functions else mean([rows[number].trace.score for number in others])
    return _Tool(versions[best], tuple(results[best]), held_out) if held_out > before or not others else None


def _rows(history: History, place: Code) -> int:
    """How many rows the allowance pays for: run once, and by two versions of the function of each group."""
    each, runs = row_calls(history, place), max(1, estimate(history.program, {}).calls)
    writing = _GROUPS * (_SAMPLES + 1)
    room = history.allowance_calls - writing - _GROUPS * _SAMPLES * _EACH * each
    return max(0, min(_ROWS, room // (runs + 2 * _GROUPS * each)))


def _fits(place: Code, code: str) -> bool:
    """Whether a place can take a function: by what it takes, and by its name."""
    return name_of(code) not in place.taken and place.takes(_value(place, code))


def _value(place: Code, code: str) -> str:
    """The source with a function: beside an agent's others, and in the place of a script."""
    return place.added(code) if place.source.functions else place.alone(code)


def _solution(place: Code, group: Sequence[Problem]) -> Form:
    """The function that solves a few rows."""
    rows = [Part(f"{row.text}\n", 1 / (number + 1)) for number, row in enumerate(group)]
    return tool(rows) if place.source.functions else solution(rows, place.reads)


def _general(place: Code, code: str) -> Form:
    """The same function for more rows."""
    takes = len(read_functions(code)[0].spec.parameters["properties"])
    return abstraction(code, takes, texts=not place.source.functions)


def _proposals(place: Code, tools: Sequence[_Tool]) -> list[Proposal]:
    """Sources with these functions, and notes on what they solve."""

    def note(*some: _Tool) -> str:
        named = ", ".join(f"{name_of(one.code)} (right on {one.held_out:.0%} of other rows)" for one in some)
        return f"{place.name}: {named}"

    single = [Proposal({place.name: _value(place, one.code)}, note(one)) for one in tools]
    names = {name_of(one.code): one for one in reversed(tools)}
    every = [one for one in tools if one is names[name_of(one.code)]]
    value = place.added(*(one.code for one in every)) if every else ""
    if len(every) < 2 or not place.source.functions or not place.takes(value):
        return single
    return [Proposal({place.name: value}, note(*every)), *single]
