"""Preference: what is asked to judge an answer, and how the answers are put together."""

import math

import pytest
from support_layers import Script, run

from engine.inference.scripted import Answer
from engine.program.preference import Judged, preferred, rightness
from engine.records import Generate, Score, Step

INPUTS = {"question": "2 + 2?"}
RIGHT = "Is this answer right?"


def test_rightness_is_the_log_odds_of_yes() -> None:
    script = Script({"Answer: 4": [-1.0, -3.5], "Answer: 5": [-4.0, -1.0]})
    assert run(rightness({**INPUTS, "answer": "4"}, RIGHT), script) == Judged(2.5)
    assert run(rightness({**INPUTS, "answer": "5"}, RIGHT, chat=False), script) == Judged(-3.0)


@pytest.mark.parametrize("chat", [True, False])
def test_preferred_asks_in_both_orders_and_a_liking_for_a_place_cancels_out(chat: bool) -> None:
    asked: list[str] = []

    def judge(request: Score | Generate) -> Answer:
        """Likes the first place by 3 nats, and 4 by 2 nats."""
        assert isinstance(request, Score)
        text = request.prompt.messages[-1].text if chat else request.prompt.text  # type: ignore[union-attr]
        asked.append(text)
        assert request.continuations == (("1", "2") if chat else (" 1", " 2"))
        return [-1.0 + 3.0 + (2.0 if "Answer 1: 4" in text else 0.0), -1.0 + (2.0 if "Answer 2: 4" in text else 0.0)]

    script = Script({"2 + 2?": judge})
    assert run(preferred(INPUTS, "answer", "5", "4", chat=chat), script) == Judged(2.0)
    assert run(preferred(INPUTS, "answer", "4", "5", chat=chat), script) == Judged(-2.0)
    assert "Answer 1: 4\nAnswer 2: 5" in asked[0]
    assert "Answer 1: 5\nAnswer 2: 4" in asked[1]


def test_preferred_shows_the_field_only_as_its_two_versions() -> None:
    seen: list[str] = []

    def judge(request: Score) -> Answer:
        seen.append(request.prompt.messages[-1].text)  # type: ignore[union-attr]
        return [-1.0, -1.0]

    run(preferred({"query": "old", "topic": "cats"}, "query", "old", "new"), Script({"": judge}))
    assert seen[0] == "Topic: cats\nQuery 1: new\nQuery 2: old"


def test_preferred_asks_nothing_about_equal_texts() -> None:
    assert run(preferred(INPUTS, "answer", "4", "4"), Script({})) == Judged(0.0)


def test_what_could_not_be_asked_is_no_number() -> None:
    long = {"question": "word " * 9000}
    for flow in (rightness({**long, "answer": "4"}, RIGHT), preferred(long, "answer", "4", "5")):
        judged = run(flow, Script({"": [-1.0, -1.0]}))
        assert judged.log_odds is None
        assert "the context holds 8,192" in judged.error


def test_a_step_is_judged_by_its_log_odds_or_says_why_not() -> None:
    step = Step("of", {}, {"answer": "4"})
    assert Judged(1.5).of(step).value == 1.5
    assert Judged(1.5).of(step).error is None
    assert Judged(error="too long").of(step).error == "not judged: too long"


@pytest.mark.model
def test_the_embedded_model_judges_alike_whichever_way_round_it_is_asked() -> None:
    from engine.opening import open_runtime

    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        for chat in (True, False):
            one = runtime.run(preferred(INPUTS, "answer", "4", "a fish", chat=chat)).log_odds
            other = runtime.run(preferred(INPUTS, "answer", "a fish", "4", chat=chat)).log_odds
            assert one is not None
            assert one == pytest.approx(-other, abs=1e-3)
            right = runtime.run(rightness({**INPUTS, "answer": "4"}, RIGHT, chat=chat)).log_odds
            assert right is not None
            assert math.isfinite(right)
