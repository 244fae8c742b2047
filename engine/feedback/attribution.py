"""Likelihood attribution: what each piece of a program and of its context does to the likelihood of right answers.

A piece is left out and the accepted answer scored again: a sentence of a text, a demonstration, a retrieved passage,
what an earlier node wrote. All of it is asked at once, and what the prompts share is computed once. Where the answer
becomes likelier without a piece, the piece does harm. Leave-one-out is the plainest of the measures of influence (Cook
1977; of parts of an input, occlusion, Zeiler & Fergus 2014); deviation: the measure is a likelihood, taken from logits,
so that a few dozen examples rank pieces whose effect on accuracy could not be seen on hundreds.

What a piece does depends on its company: of two that say the same neither is missed alone. `ablate` leaves out random
halves of the pieces instead and fits a linear model to the likelihoods (ContextCite; Cohen-Wang 2024, with least
squares in place of the lasso), which gives what each does on average over its companies. It is dearer.

The same measure checks critiques: one whose advice, put behind the text it is about, makes the answers no likelier is
not supported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.feedback.likelihood import WORST, answer_losses, likelihood_loss, tells_likelihood
from engine.feedback.losses import cross_entropy
from engine.flows import Flow, together
from engine.forward import forward, reached
from engine.program.graph import Program
from engine.program.layer import perform
from engine.program.layers.retrieve import written
from engine.program.parameters import Demos, Text
from engine.program.sentences import joined, split, without
from engine.records import Example, Feedback
from engine.statistics import mean

Kind = Literal["sentence", "demo", "passage", "input"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that can be left out.

    It is number `index` of a parameter's sentences or demonstrations, or of the passages that the output node reads, or
    all of an earlier node's text; `place` is the parameter's name or the reference of what is read.
    """

    kind: Kind
    place: str
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a piece does: `effect` is how much less likely the accepted answers are without it, in nats an example.

    Above zero it helps, below it harms. `error` is the standard error of that mean over `examples`.
    """

    piece: Piece
    effect: float
    error: float
    examples: int

    @property
    def advice(self) -> Literal["keep", "edit", "drop"]:
        """Keep what helps and drop what harms, both by more than two standard errors; the rest may be edited."""
        if self.effect > 2 * self.error:
            return "keep"
        return "drop" if self.effect < -2 * self.error else "edit"


def can_be_attributed(program: Program) -> bool:
    """Whether the likelihood of an answer can be had: a node that asks once gives it, or it is a choice."""
    return tells_likelihood(program) or any(name.endswith(".bias") for name in program.output_node.parameters())


def can_be_read(program: Program) -> bool:
    """Whether the output node reads something of other nodes, and the likelihood of its answer can be had."""
    return tells_likelihood(program) and any("." in source for source in program.output_node.sources.values())


def attribute(program: Program, examples: Sequence[Example]) -> Flow[list[Attribution]]:
    """Every sentence and demonstration of the program, worst first. One call an example and piece, and one more each.

    A text of one sentence cannot be left out, nor can demonstrations that are a pool.
    """
    pieces = pieces_of(program)
    flows = [
        _losses(program, examples),
        *(_losses(program.replace(_left_out(program, one)), examples) for one in pieces),
    ]
    whole, *left_out = yield from together(flows)
    return _ranked(zip(pieces, (_effects(whole, losses) for losses in left_out), strict=True))


def ablate(program: Program, examples: Sequence[Example], rng: Generator, halves: int = 48) -> Flow[list[Attribution]]:
    """Every sentence and demonstration, worst first, from `halves` random halves of them, a call each an example.

    `effect` is the coefficient of a piece in a linear model of the mean log-likelihood, `error` its standard error. At
    least two more halves are taken than there are pieces.
    """
    pieces = pieces_of(program)
    if not pieces:
        return []
    masks = _balanced(max(halves, len(pieces) + 3), len(pieces), rng)
    programs = [_kept(program, [piece for piece, kept in zip(pieces, mask, strict=True) if not kept]) for mask in masks]
    losses = yield from together([_losses(one, examples) for one in programs])
    effects, errors = _fitted(masks, np.array([-mean(row) for row in losses]))
    found = [
        Attribution(piece, float(effect), float(error), len(examples))
        for piece, effect, error in zip(pieces, effects, errors, strict=True)
    ]
    return sorted(found, key=lambda one: one.effect)


def attribute_inputs(program: Program, example: Example) -> Flow[list[Attribution]]:
    """Of one example: every passage and every earlier node's text that the output node reads, worst first.

    The error of a single figure is not known, so it is zero.
    """
    if not tells_likelihood(program):
        return []
    inputs = yield from reached(program, example.inputs)
    if inputs is None:
        return []
    pieces = (yield from _passages(program, example, inputs)) + [
        (Piece("input", reference, 0, inputs[name]), name, "")
        for name, reference in program.output_node.sources.items()
        if "." in reference
    ]
    changed = [{**inputs, name: text} for _, name, text in pieces]
    losses = yield from together([likelihood_loss(program, one, example.accepted) for one in (inputs, *changed)])
    effects = ([loss - losses[0]] for loss in losses[1:])
    return _ranked(zip((piece for piece, _, _ in pieces), effects, strict=True))


def supported(program: Program, feedback: Sequence[Feedback], examples: Sequence[Example]) -> Flow[list[float]]:
    """How much likelier the accepted answers are, in nats an example, with the advice put behind the text it is about.

    One figure for each feedback; those above zero are supported by the likelihood. Advice on anything but a text, or
    that the text has no room for, has 0.
    """
    advised = [_advised(program, one) for one in feedback]
    asked = [program, *(one for one in advised if one is not None)]
    whole, *found = yield from together([_losses(one, examples) for one in asked])
    left = iter(found)
    return [0.0 if one is None else mean(whole) - mean(next(left)) for one in advised]


def pieces_of(program: Program) -> list[Piece]:
    """The sentences and demonstrations of a program, in its order."""
    pieces: list[Piece] = []
    for name, parameter in program.parameters.items():
        if isinstance(parameter, Text):
            parts = split(parameter.value)
            pieces += [Piece("sentence", name, i, part.words) for i, part in enumerate(parts) if len(parts) > 1]
        elif isinstance(parameter, Demos) and not parameter.nearest:
            shown = [" ".join((*demo.inputs.values(), *demo.outputs.values())) for demo in parameter.value]
            pieces += [Piece("demo", name, i, text) for i, text in enumerate(shown)]
    return pieces


def _left_out(program: Program, piece: Piece) -> Mapping[str, Any]:
    value = program.parameters[piece.place].value
    if isinstance(value, str):
        return {piece.place: joined(without(split(value), piece.index))}
    assert isinstance(value, tuple)  # demonstrations
    return {piece.place: (*value[: piece.index], *value[piece.index + 1 :])}


def _kept(program: Program, gone: Sequence[Piece]) -> Program:
    """The program without some pieces; a text of which nothing would be left keeps its first sentence."""
    edits: dict[str, Any] = {}
    for place in dict.fromkeys(piece.place for piece in gone):
        value = program.parameters[place].value
        out = {piece.index for piece in gone if piece.place == place}
        if isinstance(value, str):
            parts = split(value)
            edits[place] = joined([part for index, part in enumerate(parts) if index not in out]) or joined(parts[:1])
        else:
            assert isinstance(value, tuple)  # demonstrations
            edits[place] = tuple(demo for index, demo in enumerate(value) if index not in out)
    return program.replace(edits)


def _balanced(many: int, pieces: int, rng: Generator) -> NDArray[np.bool_]:
    """Random masks (many, pieces), True where a piece stays; each one's opposite stands beside it."""
    drawn = rng.random((-(-many // 2), pieces)) < 0.5
    return np.concatenate([drawn, ~drawn])[:many]


def _fitted(masks: NDArray[np.bool_], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least squares of values (masks,) on what stayed: a coefficient a piece, and its standard error."""
    design = np.concatenate([np.ones((len(masks), 1)), masks.astype(np.float64)], axis=1)
    inverse = np.linalg.pinv(design.T @ design)
    found = inverse @ design.T @ values
    spread = float(((values - design @ found) ** 2).sum()) / max(1, len(masks) - design.shape[1])
    return found[1:], np.sqrt(np.maximum(0.0, np.diag(inverse)[1:] * spread))


def _advised(program: Program, feedback: Feedback) -> Program | None:
    parameter = program.parameters.get(feedback.parameter)
    if not isinstance(parameter, Text):
        return None
    text = f"{parameter.value} {feedback.text}"
    return program.replace({feedback.parameter: text}) if len(text) <= parameter.max_chars else None


def _losses(program: Program, examples: Sequence[Example]) -> Flow[list[float]]:
    """-log of the likelihood of the accepted answers, one an example."""
    if tells_likelihood(program):
        return (yield from answer_losses(program, examples))
    traces = yield from forward(program, examples)
    entropies = [cross_entropy(trace) for trace in traces]
    return [WORST if entropy is None else entropy for entropy in entropies]


def _passages(program: Program, example: Example, inputs: Mapping[str, str]) -> Flow[list[tuple[Piece, str, str]]]:
    """Each passage that the output node reads, the field it stands in, and the field's text without it."""
    found: list[tuple[Piece, str, str]] = []
    values: dict[str, str] = dict(example.inputs)
    for node in program.nodes[: program.nodes.index(program.output_node)]:
        step = yield from perform(node.name, node.layer, {name: values[ref] for name, ref in node.sources.items()})
        values |= {f"{node.name}.{field}": text for field, text in step.outputs.items()}
        for name, reference in program.output_node.sources.items():
            if reference.startswith(f"{node.name}.") and inputs[name] == written(step.passages):
                for index, passage in enumerate(step.passages):
                    rest = (*step.passages[:index], *step.passages[index + 1 :])
                    found.append((Piece("passage", reference, index, passage.text), name, written(rest)))
    return found


def _effects(whole: Sequence[float], left_out: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip(whole, left_out, strict=True)]


def _ranked(found: "zip[tuple[Piece, list[float]]]") -> list[Attribution]:
    attributions = [Attribution(piece, mean(effects), _error(effects), len(effects)) for piece, effects in found]
    return sorted(attributions, key=lambda one: one.effect)


def _error(effects: Sequence[float]) -> float:
    if len(effects) < 2:
        return 0.0
    centre = mean(effects)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in effects) / (len(effects) - 1) / len(effects))
