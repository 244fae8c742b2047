"""Values: how good something is, as a number that a model's own yes or no gives."""

from collections.abc import Mapping

from engine.flows import Flow, ask
from engine.program.prompt import Layout, continuation, render
from engine.records import Score

VERDICTS = ("yes", "no")


def yes_log_odds(question: str, shown: Mapping[str, str], chat: bool = True) -> Flow[float | None]:
    """The log-odds, in nats, that the answer to a question about what is `shown` is yes; None if it cannot be had.

    The question comes first and the last field of `shown` last, so that questions about things that begin alike share
    their beginning.
    """
    prompt = render(Layout(question, ("verdict",), choices=VERDICTS, chat=chat), shown)
    continuations = tuple(continuation(verdict, chat) for verdict in VERDICTS)
    completion = yield from ask(Score(prompt, continuations, None if chat else "\n"))
    if completion.loglikelihoods is None:
        return None
    yes, no = completion.loglikelihoods
    return yes - no
