"""Residual: when the change is kept, what it costs, and what passes through the connection."""

from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Residual, Retrieve, Sequential
from engine.records import Score, Step

DRAFT = Predict("Rewrite it.", output="rewritten")
REWRITE = Residual(DRAFT, "query")


def script(change: str = "new", after_first: float = 0.0, after_second: float = 0.0) -> Script:
    """Writes `change` and finds it better by so many nats where it stands first and where it stands second."""

    def judge(request: Score) -> list[float]:
        first = f"Question 1: {change}" in request.prompt.messages[-1].text  # type: ignore[union-attr]
        return [-5.0 + after_first, -5.0] if first else [-5.0, -5.0 + after_second]

    return Script({"Rewrite it.": change, "Which one": judge})


def test_residual_keeps_the_change_where_it_is_better() -> None:
    step = done(REWRITE, script("new", 3.0, -1.0), question="old")
    assert step.outputs == {"query": "new"}
    assert [inner.node for inner in step.steps] == ["of"]
    assert step.steps[0].value == 1.0
    assert len(step.steps[0].calls) == 1
    assert len(step.calls) == 2, "the judgements are the layer's own calls"


@pytest.mark.parametrize(("margin", "kept"), [(0.0, "old"), (-0.5, "new")])
def test_residual_keeps_the_input_of_equals(margin: float, kept: str) -> None:
    layer = Residual(Predict("Rewrite it.", output="rewritten"), "query", margin=margin)
    assert done(layer, script("new", 2.0, -2.0), question="old").outputs == {"query": kept}


@pytest.mark.parametrize("change", ["", "  ", "old"])
def test_residual_keeps_the_input_where_nothing_was_changed(change: str) -> None:
    step = done(REWRITE, script(change), question="old")
    assert step.outputs == {"query": "old"}
    assert step.calls == ()


def test_residual_goes_on_without_a_part_that_failed() -> None:
    layer = Residual(Predict("Rewrite it.", output={"rewritten": "int"}), "query")
    step = done(layer, script("no number"), question="old")
    assert step.outputs == {"query": "old"}
    assert step.error is None
    assert str(step.steps[0].error).startswith("unparsed")
    found = gradients(layer, step, script(), "question")
    assert found.parameters == {"of.instruction": ["change instruction"]}
    assert found.inputs == {"question": ["It was wrong."]}


def test_residual_keeps_the_input_where_the_change_cannot_be_judged() -> None:
    step = done(REWRITE, script("new " * 8000, 9.0, 9.0), question="old " * 1000)
    assert step.outputs == {"query": "old " * 1000}
    assert str(step.steps[0].error).startswith("not judged: the prompt needs")


def test_residual_changes_the_field_that_is_named() -> None:
    layer = Residual(Predict("Rewrite it.", output="rewritten"), "query", field="topic")
    answers = Script({"Rewrite it.": "new", "Topic 1: new": [-1.0, -2.0], "Topic 2: new": [-2.0, -1.0]})
    assert done(layer, answers, topic="old", question="Q").outputs == {"query": "new"}


def test_residual_without_the_input_to_keep_is_an_error() -> None:
    assert done(REWRITE, script()).error == "no input '' to keep"
    layer = Residual(DRAFT, "query", field="topic")
    step = done(layer, script(), question="old")
    assert step.error == "no input 'topic' to keep"
    assert gradients(layer, step, script(), "question").inputs == {}


def test_residual_passes_words_straight_through_where_it_kept_the_input() -> None:
    answers = script("new", -1.0, -1.0)
    step = done(REWRITE, answers, question="old")
    found = gradients(REWRITE, step, answers, "question")
    assert found.inputs == {"question": ["It was wrong."]}
    assert found.parameters == {}
    assert answers.asked == [], "an identity asks nobody"
    assert gradients(REWRITE, step, answers).inputs == {}


def test_residual_blames_the_change_that_it_kept() -> None:
    answers = script("new", 1.0, 1.0)
    found = gradients(REWRITE, done(REWRITE, answers, question="old"), answers, "question")
    assert found.parameters == {"of.instruction": ["change instruction"]}
    assert found.inputs == {"question": ["change question"]}
    about_instruction, about_question = answers.asked
    assert "Instruction: Rewrite it." in about_instruction
    assert "Rewritten: new\nMistake: It was wrong." in about_question


def test_residual_is_written_and_read_alike() -> None:
    round_trip(REWRITE, "question")
    full = Residual(Sequential({"a": Predict("A.", output="x")}), "q", "topic", 0.5, "Which is clearer?", "plain")
    round_trip(full, "topic", "question")
    assert full.summary == "keeps topic unless the change is better by 0.5 nats"
    program = Program(full(Input("topic"), Input("question")))
    assert program.replace({"q.margin": 1, "q.of.steps.a.instruction": "B."}).node("q").layer != full
    assert Residual(Retrieve("kb"), "q").outside == Retrieve("kb").outside


def test_residual_costs_the_change_and_two_judgements() -> None:
    layer = Residual(Predict("Rewrite it.", output="x", max_tokens=20), "q", question="x" * 40)
    cost = layer.cost({"question": 100})
    assert (cost.calls, cost.written, cost.gives["q"]) == (3, 20, 100)
    assert cost.read == (3 + 100) + 2 * (10 + 100 + 20)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "node 'a': of is missing"),
        ({"of": {"instruction": "x"}}, "node 'a': of: expected a mapping with a layer, found {'instruction': 'x'}"),
        ({"of": {"layer": "predict"}}, "node 'a': of: an instruction is missing"),
        ({"field": "topic"}, "node 'a': field 'topic' is no input here: one of question"),
        ({"margin": 99}, "node 'a': margin: expected a number from -20 to 20, found 99"),
        ({"keep": "last"}, "node 'a': unknown key 'keep'"),
    ],
)
def test_residual_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    whole = spec if "of" in spec or not spec else {"of": {"layer": "predict", "instruction": "x"}, **spec}
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "residual", "inputs": ["question"], **whole}})
    assert str(raised.value).startswith(says)


@pytest.mark.model
def test_residual_on_the_embedded_model_gives_one_of_the_two_texts() -> None:
    from engine.opening import open_runtime
    from engine.program.layer import perform

    layer = Residual(Predict("Rewrite the question in other words.", output="rewritten", max_tokens=24), "query")
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        for question in ("How tall is Mount Everest?", "who wrote hamlet"):
            step: Step = runtime.run(perform("query", layer, {"question": question}))
            (change,) = step.steps
            better = change.value is not None and change.value > 0
            assert step.outputs["query"] == (change.outputs["rewritten"] if better else question)
            assert step.error is None
