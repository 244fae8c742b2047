"""Events: what happened in one execution of a program, in the words in which it is written down.

What it was asked and what it answered; how good that was only where whoever made the event chose to tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.program.prompt import label

INPUT_CHARS, ANSWER_CHARS = 500, 200


@dataclass(frozen=True, slots=True)
class Event:
    """One execution, as far as a memory may know it. `score` and `target` are None where they are not to be known."""

    inputs: Mapping[str, str]
    answer: str
    score: float | None = None
    target: str | None = None

    @property
    def verdict(self) -> str:
        """What is known of how good the answer was, in words; empty where nothing is."""
        right = self.score is not None and self.score >= 1.0
        parts = []
        if self.score is not None:
            parts.append("right" if right else f"score {self.score:.2g}" if self.score > 0 else "wrong")
        if self.target is not None and not right:
            parts.append(f"right is {one_line(self.target, ANSWER_CHARS)}")
        return ", ".join(parts)

    @property
    def line(self) -> str:
        """All of it on one line of at most 1,000 characters."""
        named = [text if len(self.inputs) == 1 else f"{label(name)}: {text}" for name, text in self.inputs.items()]
        verdict = f" ({self.verdict})" if self.verdict else ""
        return f"{one_line('; '.join(named), INPUT_CHARS)} → {one_line(self.answer, ANSWER_CHARS)}{verdict}".strip()

    @property
    def lines(self) -> list[str]:
        """A line for each of it, as a prompt shows them."""
        shown = [f"{label(name)}: {one_line(text, INPUT_CHARS)}" for name, text in self.inputs.items()]
        shown.append(f"Answer: {one_line(self.answer, ANSWER_CHARS)}")
        return [*shown, f"Verdict: {self.verdict}"] if self.verdict else shown


def one_line(text: str, chars: int) -> str:
    """A text on one line, cut where it is longer than `chars`."""
    line = " ".join(text.split())
    return line if len(line) <= chars else f"{line[: chars - 1]}…"
