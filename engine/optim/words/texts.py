"""Texts: the parameters that are made of words, what one of them can take, and whose turn it is."""

from collections.abc import Sequence

from numpy.random import Generator

from engine.optim.history import History
from engine.program.graph import Program
from engine.program.parameters import Text


def texts_of(program: Program) -> dict[str, Text]:
    """The parameters made of words, by name."""
    return {name: value for name, value in program.parameters.items() if isinstance(value, Text)}


def fits(parameter: Text, text: str) -> bool:
    """Whether a text would be a new value of a parameter, and one that it can take."""
    return bool(text.strip()) and text != parameter.value and len(text) <= parameter.max_chars


def next_text(history: History, proposer: str, names: Sequence[str], rng: Generator) -> str:
    """The text that a proposer edits in this play, where it edits one at a time: drawn, as below.

    The more of the proposer's candidates have edited a text, the less likely it is (1 in 1 + their number): all have
    their turn, and one for which the model writes nothing useful does not hold the others up.
    """
    edited = [sum(name in candidate.edits for candidate in history.by(proposer)) for name in names]
    weights = [1 / (1 + count) for count in edited]
    return names[int(rng.choice(len(names), p=[weight / sum(weights) for weight in weights]))]
