"""Digests: what a program is for in a few lines, the same for the same rows, and never longer than asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_library import made
from support_static import COLOURS, part, predict, rows, subject

from engine.feedback.static.digest import digest_of
from engine.program.graph import Program
from engine.program.library import ARCHITECTURES
from engine.records import Example


def test_a_digest_tells_what_goes_in_what_comes_out_and_what_is_done() -> None:
    nodes = {
        "plan": predict(instruction="Plan it.", max_tokens=30),
        "answer": {**predict(choices=list(COLOURS), instruction="Name the colour."), "inputs": ["plan", "question"]},
    }
    train = rows(("red", "red", "green", "blue", "green", "red"))
    assert digest_of(Program.from_mapping(nodes), train).split("\n") == [
        "Input question: 4 words in the mean, at most 4.",
        "Answer answer: one of 3, with how often each is right in 6: red 3, green 2, blue 1.",
        "Step 1, plan: predict (plan · chat) of question.",
        'Instruction: "Plan it."',
        "Step 2, answer: predict (3 choices · chat) of plan.plan, question.",
        'Instruction: "Name the colour."',
        "Example: question = What is train 1? => red",
        "Example: question = What is train 3? => green",
        "Example: question = What is train 4? => blue",
    ]


def test_open_answers_are_told_by_their_length_and_parts_by_their_name() -> None:
    vote = {"layer": "vote", "inputs": ["question"], "of": part(temperature=0.7, instruction="Say it.")}
    lines = digest_of(Program.from_mapping({"answer": vote}), rows(("a b c", "d"))).split("\n")
    assert lines[1:4] == [
        "Answer answer: 2 words in the mean, at most 3.",
        "Step 1, answer: vote (5 samples, by count) of question.",
        'Instruction of answer.of: "Say it."',
    ]


def test_examples_with_different_answers_come_first_and_none_twice() -> None:
    program = subject({"answer": predict()}).program
    shown = [line for line in digest_of(program, rows(("a", "a", "b"))).split("\n") if line.startswith("Example")]
    assert [line[-1] for line in shown] == ["a", "b", "a"]
    assert len(set(shown)) == 3
    assert "Example" not in digest_of(program, ())
    assert "no answer is given" in digest_of(program, [Example("x", {"question": "Why?"})])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_digest_that_names_its_nodes(name: str) -> None:
    program = made(name)
    text = digest_of(program, [Example("x", dict.fromkeys(program.inputs, "a question"), ("y",))], 4000)
    assert all(f", {node.name}: {node.layer.kind}" in text for node in program.nodes)
    assert "=> y" in text
    assert text == digest_of(program, [Example("x", dict.fromkeys(program.inputs, "a question"), ("y",))], 4000)


TEXT = st.text(max_size=40).map(lambda text: 4 * text)


@settings(max_examples=30)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=4), TEXT.filter(str.strip), st.integers(0, 900))
def test_no_digest_is_longer_than_asked_nor_torn_by_its_texts(
    pairs: list[tuple[str, str]], told: str, most: int
) -> None:
    program = Program.from_mapping({"answer": predict(instruction=told)})
    examples = [Example(f"e{n}", {"question": given}, (target,)) for n, (given, target) in enumerate(pairs)]
    text = digest_of(program, examples, most)
    assert len(text) <= most
    starts = ("Input ", "Answer ", "Step ", "Instruction: ", "Example: ")
    assert all(line.startswith(starts) for line in text.split("\n") if text)
