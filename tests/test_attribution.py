"""Attribution: pieces are left out one by one, and the likelihood of the right answers says what each was worth."""

import math

import pytest
from numpy.random import default_rng
from support_optim import closed_program, rows, runtime_of

from engine import open_runtime
from engine.feedback.attribution import (
    Piece,
    ablate,
    attribute,
    attribute_inputs,
    can_be_attributed,
    pieces_of,
    supported,
)
from engine.feedback.likelihood import WORST, answer_losses
from engine.inference.scripted import Answer
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Vote
from engine.program.parameters import Demo
from engine.records import Example, Feedback, Request, Score

DEMOS = tuple(
    Demo({"text": text}, {"colour": colour}) for text, colour in (("sea", "blue"), ("sun", "bad"), ("sky", "blue"))
)


def weighing(request: Request, prompt: str) -> Answer:
    """Every `Good.` in the prompt makes an answer likelier by a nat, every `Bad` less likely by two."""
    assert isinstance(request, Score)
    return [-20.0 + prompt.count("Good.") - 2 * prompt.casefold().count("bad")] * len(request.continuations)


def open_colour(instruction: str, demos: tuple[Demo, ...] = ()) -> Program:
    return Program(Predict(instruction, output="colour", demos=demos)(Input("text")))


def test_what_harms_comes_first_and_every_figure_is_a_difference_in_nats() -> None:
    program = open_colour("Name it. Good. Bad idea. Nothing.", DEMOS)
    with runtime_of(weighing) as runtime:
        found = runtime.run(attribute(program, rows(5)))
    assert [(one.piece.text, one.effect, one.advice) for one in found] == [
        ("Bad idea.", -2.0, "drop"),
        ("sun bad", -2.0, "drop"),
        ("Name it.", 0.0, "edit"),
        ("Nothing.", 0.0, "edit"),
        ("sea blue", 0.0, "edit"),
        ("sky blue", 0.0, "edit"),
        ("Good.", 1.0, "keep"),
    ]
    assert {(one.error, one.examples) for one in found} == {(0.0, 5)}
    assert found[1].piece == Piece("demo", "colour.demos", 1, "sun bad")


def test_random_halves_give_each_piece_its_own_worth_whatever_its_company() -> None:
    program = open_colour("Name it. Good. Bad idea. Bad too. Nothing.", DEMOS)
    with runtime_of(weighing) as runtime:
        found = runtime.run(ablate(program, rows(3), default_rng(0)))
    worth = {one.piece.text: (round(one.effect, 6), one.advice) for one in found}
    assert worth["Good."] == (1.0, "keep")
    assert {worth[text] for text in ("Bad idea.", "Bad too.", "sun bad")} == {(-2.0, "drop")}
    assert [abs(worth[text][0]) for text in ("Name it.", "Nothing.", "sea blue")] == [0.0] * 3
    assert {one.piece.text for one in found[:3]} == {"Bad idea.", "Bad too.", "sun bad"}


def test_pieces_of_which_either_does_the_work_are_missed_by_leaving_one_out_and_found_by_halves() -> None:
    def either(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Score)
        return [-5.0 - 2.0 * ("Bad" in prompt)] * len(request.continuations)

    program = open_colour("One. Bad. Two. Bad. Three.")
    with runtime_of(either) as runtime:
        one_out = runtime.run(attribute(program, rows(2)))
        halves = runtime.run(ablate(program, rows(2), default_rng(1)))
    assert [one.effect for one in one_out] == [0.0] * 5
    assert [one.piece.text for one in halves[:2]] == ["Bad.", "Bad."]
    assert halves[1].effect < -0.5 < halves[2].effect


def test_a_text_of_one_sentence_and_a_pool_have_no_pieces() -> None:
    pool = Program(Predict("Name it.", output="colour", demos=DEMOS, nearest=2)(Input("text")))
    assert pieces_of(pool) == []
    assert [piece.index for piece in pieces_of(open_colour("One. Two.", DEMOS))] == [0, 1, 0, 1, 2]


def test_of_one_example_what_earlier_nodes_wrote_is_left_out() -> None:
    def hinting(request: Request, prompt: str) -> Answer:
        return weighing(request, prompt) if isinstance(request, Score) else "Bad"

    text = Input("text")
    hint = Predict("Give a hint.", output="hint")(text)
    program = Program(Predict("Name it.", output="colour")(text, hint))
    with runtime_of(hinting) as runtime:
        (found,) = runtime.run(attribute_inputs(program, rows(1)[0]))
    assert (found.piece, found.effect, found.advice) == (Piece("input", "hint.hint", 0, "Bad"), -2.0, "drop")


def test_closed_answers_are_measured_among_their_choices() -> None:
    def fond(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Score)
        return [
            1.0 if word == "red" and "red" in prompt.split("<user>")[0].split("Answer with")[0] else 0.0
            for word in request.continuations
        ]

    program = closed_program().replace({"colour.instruction": "Name the colour. It is red."})
    with runtime_of(fond) as runtime:
        found = runtime.run(attribute(program, rows(6)))
    worst = found[0]
    log_z = math.log(2 + math.e)
    assert worst.piece.text == "It is red."
    assert math.isclose(worst.effect, math.log(3) - (log_z - 1 / 3), abs_tol=1e-6)


def test_advice_is_supported_where_it_makes_answers_likelier() -> None:
    said = [Feedback("colour.instruction", text) for text in ("Good.", "Bad.", "x" * 5000)]
    said.append(Feedback("colour.demos", "Good."))
    with runtime_of(weighing) as runtime:
        assert runtime.run(supported(open_colour("Name it."), said, rows(3))) == [1.0, -2.0, 0.0, 0.0]


def test_an_example_that_cannot_be_answered_costs_the_most() -> None:
    def refusing(request: Request, prompt: str) -> Answer:
        return [0.0] if isinstance(request, Score) else "word"

    long = Example("long", {"text": "word " * 9000}, ("blue",))
    with runtime_of(refusing) as runtime:
        assert runtime.run(answer_losses(open_colour("Name it."), [long])) == [WORST]


def test_only_an_answer_with_a_likelihood_can_be_attributed() -> None:
    vote = Program(Vote(Predict("Name it.", output="colour", temperature=0.7), n=3)(Input("text")))
    assert can_be_attributed(closed_program())
    assert not can_be_attributed(vote)


@pytest.mark.model
def test_a_sentence_that_spoils_the_form_of_the_answer_is_found_by_a_small_model() -> None:
    program = Program(
        Predict("Write the plural of the word. Answer with one word. Write a poem about it.", output="plural")(
            Input("word")
        )
    )
    words = {"dog": "dogs", "cat": "cats", "house": "houses", "tree": "trees", "car": "cars", "hand": "hands"}
    examples = [Example(word, {"word": word}, (plural,)) for word, plural in words.items()]
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        found = runtime.run(attribute(program, examples))
    assert found[0].piece.text == "Write a poem about it."
    assert found[0].effect < 0 < found[-1].effect
