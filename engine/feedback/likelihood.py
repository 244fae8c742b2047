"""Likelihood: how likely a program makes the right answers, without writing a word.

The answer is put behind the prompt of the program's output node and scored there (teacher forcing). One call an
example, far cheaper than writing, and a continuous figure where the score of what was written is 0 or 1. It says
nothing of an answer that comes at the end of a reasoning, nor of whether the model would stop after it.
"""

import math
from collections.abc import Mapping, Sequence

from engine.flows import Flow, together
from engine.forward import reached
from engine.program.graph import Program
from engine.program.layers import Predict
from engine.program.recurrence import carries_state
from engine.records import Example
from engine.statistics import mean

WORST = 100.0  # nats, of an answer that cannot be given, or of an execution that failed


def tells_likelihood(program: Program) -> bool:
    """Whether the program's answer is one that can be scored: the only output of a node that asks the model once."""
    layer = program.output_node.layer
    return isinstance(layer, Predict) and len(layer.outputs) == 1 and not carries_state(program)


def answer_losses(program: Program, examples: Sequence[Example]) -> Flow[list[float]]:
    """-log of the likelihood of each example's likeliest accepted answer, in nats, from 0 to WORST."""
    return (yield from together([_answer_loss(program, example) for example in examples]))


def mean_answer_loss(program: Program, examples: Sequence[Example]) -> Flow[float]:
    """The mean of `answer_losses`; lower is better."""
    return mean((yield from answer_losses(program, examples)))


def likelihood_loss(program: Program, inputs: Mapping[str, str], answers: Sequence[str]) -> Flow[float]:
    """-log of the likelihood of the likeliest of some answers, given what the output node reads."""
    layer = program.output_node.layer
    assert isinstance(layer, Predict)  # the caller has asked tells_likelihood
    found = yield from layer.likelihood(inputs, answers)
    best = max(found, default=-math.inf) if found else -math.inf
    return min(WORST, max(0.0, -best))


def _answer_loss(program: Program, example: Example) -> Flow[float]:
    inputs = yield from reached(program, example.inputs)
    return WORST if inputs is None else (yield from likelihood_loss(program, inputs, example.accepted))
