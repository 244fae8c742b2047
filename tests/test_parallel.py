"""Parallel: its fields, what a failed branch does, and that each branch is told what was said of its own field."""

from collections.abc import Mapping
from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip, run

import engine
from engine.errors import ContentError
from engine.feedback.backward import backward
from engine.forward import forward
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Parallel, Predict, Sequential
from engine.records import Example, Generate, Score
from engine.tasks.metrics import METRICS

TONE = Predict("Name the tone.", output="tone", choices=("warm", "cold"))
BOTH = Parallel({"topic": Predict("Name the topic.", output=("why", "subject")), "tone": TONE})
SCRIPT: Mapping[str, Any] = {"Name the topic.": "because\nSubject: fish", "Name the tone.": [-1.0, -2.0]}
EXACT = METRICS["exact_match"]


def program() -> Program:
    parts = BOTH(Input("text"), name="parts")
    return Program(Predict("Write it.", output="answer")(parts["topic"], parts["tone"]))


def test_each_branch_gives_its_main_output_under_its_own_name() -> None:
    step = done(BOTH, Script(SCRIPT), text="T")
    assert step.outputs == {"topic": "fish", "tone": "warm"}
    assert [inner.node for inner in step.steps] == ["branches.topic", "branches.tone"]
    assert step.steps[0].outputs == {"why": "because", "subject": "fish"}, "the others stand in the trace"
    assert step.probabilities == step.steps[1].probabilities
    assert step.calls == ()
    assert Program(BOTH(Input("text"))).output == "tone.tone"


def test_all_branches_are_asked_in_one_batch() -> None:
    flow = BOTH.flow({"text": "T"})
    effect: Any = flow.send(None)
    asked = [next(inner) for inner in effect.flows]
    assert [type(request) for request in asked] == [Generate, Score]


def test_a_failed_branch_fails_the_whole_and_is_named() -> None:
    step = done(BOTH, Script({**SCRIPT, "Name the topic.": "no second field"}), text="T")
    assert step.error == "topic: unparsed: the reply lacks a field of why, subject"
    assert step.outputs == {}
    assert [inner.error is None for inner in step.steps] == [False, True]


def test_only_a_failed_branch_is_told_of_a_failure() -> None:
    script = Script({**SCRIPT, "Name the topic.": "no second field"})
    found = gradients(BOTH, done(BOTH, script, text="T"), script, "text")
    assert found.parameters == {"branches.topic.instruction": ["change instruction"]}
    assert found.inputs == {"text": ["change text"]}
    assert all("Instruction: Name the topic." in text for text in script.asked)
    assert all(text.count("Mistake:") == 1 for text in script.asked), "what was said is told once"


def test_what_was_said_of_the_whole_is_said_of_every_branch() -> None:
    script = Script(SCRIPT)
    found = gradients(BOTH, done(BOTH, script, text="T"), script)
    assert list(found.parameters) == ["branches.topic.instruction", "branches.tone.instruction"]
    assert all("Mistake: It was wrong." in text for text in script.asked)


def test_backward_tells_each_branch_what_was_said_of_its_own_field() -> None:
    """answer said `change topic` of one field and `change tone` of the other: worked by hand, in this order."""
    script = Script({**SCRIPT, "Write it.": "wrong"})
    examples = [Example("1", {"text": "T"}, ("right",))]
    traces = run(forward(program(), examples, EXACT), script)
    feedback = run(backward(program(), traces), script)
    assert [item.parameter for item in feedback] == [
        "parts.branches.topic.instruction",
        "parts.branches.tone.instruction",
        "answer.instruction",
    ]
    *about_answer, about_topic, about_tone = script.asked
    assert len(about_answer) == 3
    assert about_topic.startswith("Instruction: Name the topic.\n")
    assert about_tone.startswith("Instruction: Name the tone.\n")
    assert [line for line in about_topic.splitlines() if "Mistake" in line] == ["Mistake: change topic"]
    assert [line for line in about_tone.splitlines() if "Mistake" in line] == ["Mistake: change tone"]


def test_a_branch_of_which_nothing_was_said_is_left_in_peace() -> None:
    script = Script(SCRIPT)
    step = done(BOTH, script, text="T")
    found = run(BOTH.backward_by_field(step, {"topic": ["Too dull."], "tone": []}, ()), script)
    assert found.parameters == {"branches.topic.instruction": ["change instruction"]}


def test_sequential_keeps_the_fields_of_its_steps_apart() -> None:
    chain = Sequential({"parts": BOTH, "solve": Predict("Write it.", output="answer")})
    script = Script({**SCRIPT, "Write it.": "wrong"})
    gradients(chain, done(chain, script, text="T"), script)
    about_topic, about_tone = script.asked[-2:]
    assert "Mistake: change topic" in about_topic
    assert "change tone" not in about_topic
    assert "Mistake: change tone" in about_tone
    last = Sequential({"plan": Predict("Plan it.", output="plan"), "parts": BOTH})
    script = Script({"Plan it.": "p", **SCRIPT})
    step = done(last, script, text="T")
    found = run(last.backward_by_field(step, {"topic": [], "tone": ["Too cold."]}, ()), script)
    assert list(found.parameters) == ["steps.parts.branches.tone.instruction", "steps.plan.instruction"]


def test_a_step_that_failed_before_the_last_is_told_everything() -> None:
    chain = Sequential({"plan": Predict("Plan it.", output={"plan": "int"}), "parts": BOTH})
    script = Script({"Plan it.": "no number"})
    traces = run(forward(Program(chain(Input("text"))), [Example("1", {"text": "T"}, ("warm",))], EXACT), script)
    feedback = run(backward(Program(chain(Input("text"))), traces), script)
    assert [item.parameter for item in feedback] == ["tone.steps.plan.instruction"]
    assert "Mistake: The step failed: plan: unparsed: plan: expected a whole number" in script.asked[0]


def test_parallel_is_written_and_read_alike_and_branches_are_named_after_themselves() -> None:
    round_trip(BOTH, "text")
    branch = {"layer": "predict", "instruction": "x"}
    read = Program.from_mapping(
        {
            "parts": {"layer": "parallel", "inputs": ["text"], "branches": {"one": branch, "two": branch}},
            "answer": {"layer": "predict", "inputs": ["parts.one", "parts.two"], "instruction": "y"},
        }
    )
    assert read.node("answer").inputs == ("one", "two")
    assert read.node("parts").layer.parts["branches.one"].outputs == ("one",)
    assert Program.from_mapping(read.to_mapping()) == read
    assert read.node("parts").layer.summary == "one | two"


def test_parallel_costs_what_its_branches_cost() -> None:
    one, other = (part.cost({"text": 100}) for part in BOTH.branches.values())
    cost = BOTH.cost({"text": 100})
    assert (cost.calls, cost.read, cost.written) == (2, one.read + other.read, 64)
    assert cost.gives == {"topic": 64, "tone": 1}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "node 'a': branches: expected a mapping of branches by name"),
        ({"branches": {}}, "node 'a': branches: expected a mapping of branches by name"),
        ({"branches": {"x y": {"layer": "predict"}}}, "node 'a': branch name 'x y': use letters"),
        ({"branches": {"x": {"layer": "predict"}}}, "node 'a': branches.x: an instruction is missing"),
        ({"branches": {"x": {"layer": "predict", "instruction": "x"}}, "k": 1}, "node 'a': unknown key 'k'"),
    ],
)
def test_parallel_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "parallel", "inputs": ["text"], **spec}})
    assert str(raised.value).startswith(says)
    with pytest.raises(ContentError, match="at least one branch is needed"):
        Parallel({})


@pytest.mark.model
def test_parallel_with_a_real_model() -> None:
    subject = Predict("Name the subject in one word.", output="subject", max_tokens=8)
    both = Parallel({"topic": subject, "tone": TONE})
    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        prediction = engine.bind(Program(both(Input("text"))), runtime)(text="The sea was calm and the sun was out.")
    assert prediction.error is None
    assert set(prediction.outputs) == {"tone.topic", "tone.tone"}
    assert prediction.text in ("warm", "cold")
    assert prediction.probabilities is not None
    assert max(prediction.probabilities, key=prediction.probabilities.__getitem__) == prediction.text


def test_any_field_of_a_node_can_be_read_where_a_program_is_built() -> None:
    branches = BOTH(Input("text"), name="branches")
    program = Program(Predict("Answer.")(branches["topic"], branches))
    assert list(program.nodes[-1].sources.values()) == ["branches.topic", "branches.tone"]
    with pytest.raises(ContentError, match=r"'branches\.tone' has no field 'mood'"):
        branches["mood"]
