"""Sequential: what it has its steps do, whom it blames, and that it is written and read alike."""

from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Sequential

PLAN = Sequential({"plan": Predict("Plan it.", output="plan"), "solve": Predict("Solve it.", output="answer")})


def test_sequential_shows_every_step_what_came_before_it() -> None:
    step = done(PLAN, Script({"Plan it.": "my plan", "Solve it.": "42"}), question="Q")
    assert step.outputs == {"answer": "42"}
    assert [inner.node for inner in step.steps] == ["steps.plan", "steps.solve"]
    assert step.steps[1].inputs == {"question": "Q", "plan": "my plan"}
    assert step.calls == (), "calls stand in the steps that made them"
    assert all(len(inner.calls) == 1 for inner in step.steps)


def test_sequential_passes_what_a_step_says_of_its_input_to_the_step_that_wrote_it() -> None:
    script = Script({"Plan it.": "my plan", "Solve it.": "41"})
    found = gradients(PLAN, done(PLAN, script, question="Q"), script, "question")
    assert found.parameters == {
        "steps.solve.instruction": ["change instruction"],
        "steps.plan.instruction": ["change instruction"],
    }
    assert found.inputs == {"question": ["change question", "change question"]}
    about_solve, about_question, about_plan, *rest = script.asked
    assert "Instruction: Solve it." in about_solve
    assert "Mistake: It was wrong." in about_question
    assert "how the plan should" in about_plan
    assert "Mistake: change plan" in rest[0], "the plan's gradient is what its reader said of it"


def test_sequential_gives_its_steps_parameters_and_takes_them_back() -> None:
    program = Program(PLAN(Input("question")))
    edited = program.replace({"answer.steps.plan.instruction": "Plan it well."})
    assert edited.parameters["answer.steps.plan.instruction"].value == "Plan it well."
    assert edited.parameters["answer.steps.solve.instruction"].value == "Solve it."
    round_trip(PLAN, "question")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "node 'a': steps: expected a mapping of steps by name"),
        ({"steps": {"one": {}}}, "node 'a': steps.one: expected a mapping with a layer"),
        ({"steps": {"one": {"layer": "predict"}}}, "node 'a': steps.one: an instruction is missing"),
        ({"steps": {"one": {"layer": "predict", "instruction": "x"}}, "k": 1}, "node 'a': unknown key 'k'"),
    ],
)
def test_sequential_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "sequential", "inputs": ["question"], **spec}})
    assert str(raised.value).startswith(says)
