"""textual_gradient: which of several gradients are followed."""

from support_optim import history_of, open_program, proposed, rows

from engine.inference.scripted import Answer, Script
from engine.optim.proposers.textual_gradient import TextualGradientProposer
from engine.records import Request, Score

ADVICE = "Look at the last word of the text."


def script(helps: bool) -> Script:
    """Answers nothing right; advice that reaches the last node makes the accepted answer likelier, or nothing does."""

    def answer(request: Request, prompt: str) -> Answer:
        if isinstance(request, Score):
            return [-1.0 if helps and ADVICE in prompt else -5.0 for _ in request.continuations]
        return ADVICE if request.role == "optimizer" else "thing"

    return answer


def edited(helps: bool) -> set[str]:
    run = history_of(open_program(), rows(30), allowance_calls=300)
    found = proposed(TextualGradientProposer(), run, script(helps))
    return {name for proposal in found for name in proposal.edits}


def test_advice_that_likelihood_bears_out_is_followed_and_other_is_not() -> None:
    assert edited(helps=True) == {"colour.instruction"}


def test_where_likelihood_bears_out_none_all_are_followed() -> None:
    assert edited(helps=False) == {"colour.instruction", "hint.instruction"}
