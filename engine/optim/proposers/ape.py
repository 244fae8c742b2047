"""ape: instructions induced from input-output pairs, and variations of the best (APE; Zhou 2023, algorithm 1).

Propose: the model is shown a few pairs and says which instruction may have led to them (section 3.1, forward mode).
Score: each is measured on train rows that no prompt has shown, first on few and the best on more (section 3.2).
Resample: variations of the best, of the same meaning (section 3.3, iterative Monte Carlo search), are measured with
them. The best of all are proposed. Later plays draw other pairs, and vary the best of earlier plays, too.

The pairs of the program's only node are train examples with their targets, so that nothing has to be executed. A part
of a node, or a node before or behind another, learns from what it did in executions that scored full marks.

Deviations: scores are the loss by which the run screens, not the accuracy. The request shows solved ones of other
tasks, closed ones for a closed answer: without them hardly one of SmolLM2-135M's answers was an instruction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, together
from engine.optim.history import History, Proposal
from engine.optim.narrowing import FEWEST_ROWS, calls_a_row, narrowed
from engine.optim.words.rewording import reworded
from engine.optim.words.telling import on_a_line
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.variants import alike_but_for
from engine.optim.words.worked import CLOSED, OPEN
from engine.optim.words.writing import ARROW, Brief, openings_like, particular, written
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.layers import Predict
from engine.program.places import place_of, steps_of
from engine.program.pool import labelled
from engine.records import Example, Trace

_DRAWS = 4  # of pairs, each with a request of its own
_PAIRS = 5
_MOST_INDUCED = 32
_KEPT = 4
_EARLIER = 2
_MOST_CHARS = 160
_MOST_TOKENS = 40
_ANSWERS_CHARS = 300


class APEProposer:
    """Proposes up to four instructions for one place."""

    name = "ape"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether a node, or a part of one, that asks the model once is told what to do."""
        return bool(_instructions(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The best induced instructions and variations of them, best first."""
        names = _instructions(history.program)
        if not names:
            return []
        name = next_text(history, self.name, names, rng)
        each = calls_a_row(history.incumbent, history.train)
        known = yield from _pairs(history, name, each)
        plan = _Plan.of(history.allowance_calls - known.calls, each * FEWEST_ROWS)
        if len(known.lines) < 2 or plan.first < 0:
            return []
        induced = yield from _induced(history, name, known.lines, plan.many, rng)
        best = yield from narrowed(
            history, _proposals(history, name, induced, "induced"), _KEPT, plan.first, known.rest
        )
        kept = [str(proposal.edits[name]) for proposal in best]
        varied = yield from _varied(history, [*kept, *_earlier(history, name)], plan.many, rng)
        new = [text for text in varied if text not in kept]
        pool = best + _proposals(history, name, new, "induced and said in other words")
        return (yield from narrowed(history, pool, _KEPT, plan.second, known.rest))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many texts are induced, as many variations being made, and the calls that measure the ones and the others."""

    many: int
    first: int
    second: int

    @classmethod
    def of(cls, calls: int, a_text: int) -> "_Plan":
        """As many as can all be measured, each with `a_text` calls at the least, the best induced ones twice."""
        many = min(_MOST_INDUCED, max(_KEPT, (calls - _KEPT * a_text) // (2 * (a_text + 1))))
        first = (calls - 2 * many) * many // (2 * many + _KEPT)
        return cls(many, first, calls - 2 * many - first)


@dataclass(frozen=True, slots=True)
class _Known:
    """Pairs on a line each, the train rows that none of them is from, and the calls it took to have them."""

    lines: Sequence[str]
    rest: Sequence[Example]
    calls: int


def _instructions(program: Program) -> list[str]:
    return [name for name in texts_of(program) if isinstance(place_of(program, name).layer, Predict)]


def _pairs(history: History, name: str, each: int) -> Flow[_Known]:
    """What goes in where a text acts and what should come out."""
    program, drawn = history.program, history.drawn
    node = program.node(name.partition(".")[0])
    if len(program.nodes) == 1 and place_of(program, name).layer is node.layer and len(node.layer.outputs) == 1:
        cut = min(_DRAWS * _PAIRS, len(drawn) // 2)
        demos = [demo for example in drawn[:cut] if (demo := labelled(node, example))]
        return _Known([on_a_line(demo.inputs, demo.outputs) for demo in demos], drawn[cut:], 0)
    cut = min(history.allowance_calls // (4 * each), len(drawn) // 2)
    traces = yield from history.objective.run(program, drawn[:cut])
    lines = [line for trace in traces if trace.score >= 1.0 and (line := _did(program, trace, name))]
    return _Known(lines[: _DRAWS * _PAIRS], drawn[cut:], cut * each)


def _did(program: Program, trace: Trace, name: str) -> str:
    """A pair of what was done at a place in a right execution: of several samples one with the right answer."""
    main, answer = program.output_field, trace.prediction.text
    done = [step for step in steps_of(trace.steps, name) if step.error is None and step.outputs]
    right = [step for step in done if step.outputs.get(main, answer) == answer]
    return on_a_line(right[0].inputs, right[0].outputs) if right else ""


def _induced(history: History, name: str, lines: Sequence[str], many: int, rng: Generator) -> Flow[list[str]]:
    """Up to `many` instructions, from several draws of pairs."""
    layer = place_of(history.program, name).layer
    answers = ", ".join(layer.choices) if isinstance(layer, Predict) else ""
    drawn = [[lines[int(index)] for index in rng.permutation(len(lines))[:_PAIRS]] for _ in range(_DRAWS)]
    samples = [len(range(number, many, _DRAWS)) for number in range(_DRAWS)]
    found = yield from together(
        [
            written(history, _brief(pairs, answers), count, generator)
            for pairs, count, generator in zip(drawn, samples, rng.spawn(_DRAWS), strict=True)
        ]
    )
    shown = [" ".join(pair.split(ARROW)[0] for pair in pairs) for pairs in drawn]
    general = [
        text for texts, inputs in zip(found, shown, strict=True) for text in texts if not particular(text, inputs)
    ]
    return list(dict.fromkeys(general))


def _brief(pairs: Sequence[str], answers: str) -> Brief:
    """The request for an instruction that led to these pairs; closed answers are all named."""
    tasks = CLOSED if answers else OPEN
    return Brief(
        "Find the instruction that leads to the answers.",
        (*(Part(pair, 1 / (place + 1)) for place, pair in enumerate(pairs)), Part(_asked(answers))),
        _MOST_CHARS,
        _MOST_TOKENS,
        top_p=0.9,
        shown=tuple((f"{task.pairs}\n{_asked(task.answers)}", task.instruction) for task in tasks),
        openings=openings_like(*(task.instruction for task in tasks)) if answers else (),
        plain=True,
    )


def _asked(answers: str) -> str:
    return f"Possible answers: {one_line(answers, _ANSWERS_CHARS)}\nInstruction:" if answers else "Instruction:"


def _varied(history: History, stems: Sequence[str], many: int, rng: Generator) -> Flow[list[str]]:
    """Variations of each of some texts, at most `many` in all."""
    found = yield from together(
        [
            reworded(history, stem, many // len(stems), generator)
            for stem, generator in zip(stems, rng.spawn(len(stems)), strict=True)
        ]
    )
    return list(dict.fromkeys(text for texts in found for text in texts))


def _earlier(history: History, name: str) -> list[str]:
    """The best texts that earlier plays have found, to be varied again."""
    own = [one for one in history.best(len(history.candidates)) if one.proposer == APEProposer.name]
    return [str(one.edits[name]) for one in own if name in one.edits][:_EARLIER]


def _proposals(history: History, name: str, texts: Sequence[str], how: str) -> list[Proposal]:
    """Those of the texts that the incumbent has not been tried with."""
    tried = alike_but_for(history, history.program, name)
    parameter = texts_of(history.program)[name]
    new = [text for text in texts if fits(parameter, text) and text not in tried]
    return [Proposal({name: text}, f"{name} {how}: {text}") for text in new]
