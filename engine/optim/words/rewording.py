"""Rewording: an instruction in other words, of the same meaning (the Monte Carlo step of APE and of ProTeGi)."""

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow
from engine.optim.history import History
from engine.optim.words.worked import MENDED
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.event import one_line

_MOST_CHARS = 300
_MOST_TOKENS = 72
_TEMPERATURE = 0.8


def reworded(history: History, text: str, samples: int, rng: Generator) -> Flow[list[str]]:
    """Up to so many variations of a text, none of them the text itself."""
    brief = Brief(
        "Each instruction is said again in other words, and means the same.",
        (Part(f"Instruction: {one_line(text, _MOST_CHARS)}\nIn other words:"),),
        _MOST_CHARS,
        _MOST_TOKENS,
        _TEMPERATURE,
        shown=tuple((f"Instruction: {task.instruction}\nIn other words:", task.reworded) for task in MENDED),
        openings=openings_like(text),
        plain=True,
    )
    texts = yield from written(history, brief, samples, rng)
    return [found for found in texts if found != text]
