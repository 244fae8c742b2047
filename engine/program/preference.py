"""Preference: how good the model finds an answer, by likelihood; no text is written.

`rightness` looks at one answer (P(True); Kadavath 2022), `preferred` at two, in both orders, so that a liking for the
first place or for a number cancels out (balanced positions; Wang 2023, "Large Language Models are not Fair
Evaluators"). Both are differences of log-likelihoods, in nats: comparable with one another for one question, not
calibrated.

A very small model judges no better than chance. Of a right and a wrong answer to 30 simple questions, SmolLM2-135M
preferred the right one 16 times; in one order alone (with the letters A and B) 27 times where the right one stood
first, 5 times where it stood second. The right one was the likelier continuation of the question 26 times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.flows import Flow, ask, together
from engine.program.prompt import Layout, continuation, render
from engine.records import Role, Score, Step

BETTER = "Which one is better? Say 1 or 2."


@dataclass(frozen=True, slots=True)
class Judged:
    """Log-odds in nats, or why there are none; `calls` are the keys of the calls that were made for them."""

    log_odds: float | None = None
    error: str | None = None
    calls: tuple[str, ...] = field(default=(), compare=False)

    def of(self, step: Step) -> Step:
        """The step as judged: its value, or that it could not be judged."""
        return replace(step, value=self.log_odds, error=self.error and f"not judged: {self.error}")


def rightness(shown: Mapping[str, str], question: str, chat: bool = True, role: Role = "task") -> Flow[Judged]:
    """Log-odds of yes against no when `question` is asked of what is shown.

    The question comes first and the last field of `shown` last, so that questions about things that begin alike share
    their beginning.
    """
    found = yield from _between(question, shown, "verdict", ("yes", "no"), chat, role)
    return found


def preferred(
    inputs: Mapping[str, str], field: str, before: str, after: str, question: str = BETTER, chat: bool = True
) -> Flow[Judged]:
    """Log-odds that `after` is the better `field`, the mean of both orders; 0 for equal texts, without asking."""
    if before == after:
        return Judged(0.0)
    shown = {name: text for name, text in inputs.items() if name != field}
    names = (f"{field}_1", f"{field}_2")
    orders = [(after, before), (before, after)]
    asked = [
        _between(question, shown | dict(zip(names, order, strict=True)), "better", ("1", "2"), chat) for order in orders
    ]
    first, second = yield from together(asked)
    calls = (*first.calls, *second.calls)
    if first.log_odds is None or second.log_odds is None:
        return Judged(error=first.error or second.error, calls=calls)
    return Judged((first.log_odds - second.log_odds) / 2, calls=calls)


def _between(
    question: str, shown: Mapping[str, str], label: str, options: tuple[str, str], chat: bool, role: Role = "task"
) -> Flow[Judged]:
    """Log-odds of the first option against the second, behind `label` in plain text."""
    prompt = render(Layout(question, (label,), chat=chat), shown)
    scored = Score(prompt, tuple(continuation(option, chat) for option in options), None if chat else "\n", role=role)
    completion = yield from ask(scored)
    calls = (completion.key,) if completion.key else ()
    if completion.loglikelihoods is None:
        return Judged(error=completion.error, calls=calls)
    one, other = completion.loglikelihoods
    return Judged(one - other, calls=calls)
