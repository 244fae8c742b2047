"""Route: whom the gate chooses, how answers are combined, and what the gate and the experts are told."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip

import engine
from engine.errors import ContentError
from engine.program.cost import Cost
from engine.program.graph import Program
from engine.program.layer import Input, perform
from engine.program.layers import Predict, Route, Sequential

GATE = Predict("Which subject is it?", output="expert", choices=("maths", "history", "law"))
EXPERTS = {
    "maths": Predict("Reckon it.", output="answer"),
    "history": Predict("Date it.", output="answer"),
    "law": Predict("Judge it.", output="answer"),
}
ROUTE = Route(GATE, EXPERTS)
SURE = (0.5, 0.3, 0.2)


def scores(*probabilities: float) -> list[float]:
    return [math.log(probability) for probability in probabilities]


def script(*answers: Any, gate: tuple[float, ...] = SURE) -> Script:
    words = ("Reckon it.", "Date it.", "Judge it.")
    return Script({"Which subject": scores(*gate), **dict(zip(words, answers, strict=True))})


def test_the_gate_runs_first_and_only_its_choice_runs_then() -> None:
    step = done(ROUTE, script("42", "1492", "guilty", gate=(0.2, 0.7, 0.1)), question="Q")
    assert step.outputs == {"answer": "1492"}
    assert [inner.node for inner in step.steps] == ["gate", "experts.history"]
    assert step.steps[1].value == pytest.approx(0.7, abs=1e-3)
    assert step.calls == ()
    assert step.probabilities is None


def test_the_bias_of_the_gate_moves_its_choice() -> None:
    program = Program(ROUTE(Input("question")))
    edited = program.replace({"answer.gate.bias": {"law": 3.0}, "answer.top": 2})
    step = done(edited.output_node.layer, script("42", "1492", "guilty"), question="Q")
    assert [inner.node for inner in step.steps] == ["gate", "experts.law", "experts.maths"]
    assert step.outputs == {"answer": "guilty"}


@pytest.mark.parametrize(("top", "given"), [(1, "a"), (2, "a"), (3, "B c")])
def test_equal_answers_of_the_experts_that_run_add_up(top: int, given: str) -> None:
    step = done(replace(ROUTE, top=top), script("a", "B c", " b  C", gate=(0.4, 0.35, 0.25)), question="Q")
    assert step.outputs == {"answer": given}, "as the likeliest of the experts that gave it wrote it"
    assert len(step.steps) == 1 + top


def test_of_equal_weights_the_first_expert_wins() -> None:
    step = done(replace(ROUTE, top=3), script("c", "b", "a", gate=(0.25, 0.25, 0.25)), question="Q")
    assert step.outputs == {"answer": "c"}


def test_experts_with_the_same_choices_are_averaged() -> None:
    choices = ("yes", "no", "maybe")
    route = Route(GATE, {name: replace(expert, choices=choices) for name, expert in EXPERTS.items()}, top=2)
    step = done(route, script(scores(0.6, 0.4, 1e-9), scores(1e-9, 1.0, 1e-9), [], gate=(0.6, 0.3, 0.1)), question="Q")
    assert step.probabilities is not None
    assert step.probabilities["yes"] == pytest.approx(0.6 * 0.6 / 0.9, abs=1e-3)
    assert step.probabilities["no"] == pytest.approx((0.6 * 0.4 + 0.3) / 0.9, abs=1e-3)
    assert math.fsum(step.probabilities.values()) == pytest.approx(1.0)
    assert step.outputs == {"answer": "no"}, "the mean decides, though the likelier expert said yes"
    assert step.loglikelihoods is None


def test_one_expert_gives_its_own_probabilities_and_mixed_kinds_give_none() -> None:
    sure = replace(EXPERTS["maths"], choices=("a", "b"))
    route = Route(GATE, {**EXPERTS, "maths": sure})
    step = done(route, script(scores(0.9, 0.1), "b", "b"), question="Q")
    assert step.probabilities == step.steps[1].probabilities
    assert step.loglikelihoods == step.steps[1].loglikelihoods
    step = done(replace(route, top=2), script(scores(0.9, 0.1), "b", "b"), question="Q")
    assert (step.outputs, step.probabilities) == ({"answer": "a"}, None)


TYPED = {name: replace(expert, output={"answer": "int"}) for name, expert in EXPERTS.items()}


def test_a_failed_expert_has_no_say_and_all_failed_fail_the_whole() -> None:
    route = Route(GATE, TYPED, top=2)
    step = done(route, script("no number", "7", "7"), question="Q")
    assert step.outputs == {"answer": "7"}
    assert step.error is None
    failed = done(route, script("no number", "none either", "7"), question="Q")
    assert failed.error == "maths: unparsed: answer: expected a whole number, found 'no number'"
    assert len(failed.steps) == 3


def test_experts_of_no_weight_give_no_probabilities() -> None:
    failing = Predict("Reckon it.", output={"answer": "int"})
    unsure = {name: replace(EXPERTS[name], choices=("a", "b")) for name in ("history", "law")}
    asked = Script({**script("none", [-1.0, -2.0], [-2.0, -1.0]).answers, "Which subject": [0.0, -2000.0, -2000.0]})
    step = done(Route(GATE, {"maths": failing, **unsure}, top=3), asked, question="Q")
    assert (step.outputs, step.probabilities, step.error) == ({"answer": "a"}, None, None)


def test_a_gate_of_another_kind_may_be_wrong_and_have_no_probabilities() -> None:
    def answered(name: str, top: int = 1, output: Any = "expert") -> Any:
        gate = Sequential({"name": Predict("Name the subject.", output=output)})
        asked = Script({"Name the subject.": name, "Judge it.": "guilty"})
        return done(Route(gate, EXPERTS, top), asked, question="Q")

    assert answered("law").outputs == {"answer": "guilty"}
    assert answered("law").steps[1].value is None
    assert answered("ghost").error == "gate: it chose 'ghost', which is no expert"
    assert answered("law", top=2).error == "gate: it gave no probabilities of the experts, which top 2 needs"
    failed = answered("law", output={"expert": "int"})
    assert failed.error == "gate: name: unparsed: expert: expected a whole number, found 'law'"
    assert len(failed.steps) == 1


def test_backward_tells_the_expert_what_was_said_and_the_gate_whom_it_chose() -> None:
    asked = script("42", "1492", "guilty")
    found = gradients(ROUTE, done(ROUTE, asked, question="Q"), asked, "question")
    assert found.parameters == {
        "experts.maths.instruction": ["change instruction"],
        "gate.instruction": ["change instruction"],
    }
    assert found.inputs == {"question": ["change question", "change question"]}
    by_expert, by_gate = asked.asked[:2], asked.asked[2:]
    assert all(
        text.startswith("Instruction: Reckon it.\nQuestion: Q\nAnswer: 42\nMistake: It was wrong.\n")
        for text in by_expert
    )
    said = 'It chose "maths", and of the answer was said: It was wrong.'
    assert all(
        text.startswith(f"Instruction: Which subject is it?\nQuestion: Q\nExpert: maths\nMistake: {said}\n")
        for text in by_gate
    )


def test_backward_blames_only_the_experts_that_gave_the_answer() -> None:
    asked = script("a", "b", "B", gate=(0.4, 0.35, 0.25))
    route = replace(ROUTE, top=3)
    found = gradients(route, done(route, asked, question="Q"), asked)
    assert list(found.parameters) == [
        "experts.history.instruction",
        "experts.law.instruction",
        "gate.instruction",
    ]
    assert 'It chose "maths" and "history" and "law", and' in asked.asked[-1]


def test_backward_of_a_failure_blames_the_experts_that_failed_or_the_gate() -> None:
    route = Route(GATE, TYPED, top=2)
    asked = script("x", "y", "7")
    found = gradients(route, done(route, asked, question="Q"), asked)
    assert list(found.parameters) == ["experts.maths.instruction", "experts.history.instruction", "gate.instruction"]
    gate = Sequential({"name": Predict("Name the subject.", output="expert")})
    asked = Script({"Name the subject.": "ghost"})
    found = gradients(Route(gate, EXPERTS), done(Route(gate, EXPERTS), asked, question="Q"), asked)
    assert found.parameters == {"gate.steps.name.instruction": ["change instruction"]}
    assert "Mistake: It was wrong." in asked.asked[0]


def test_route_is_written_and_read_alike() -> None:
    round_trip(replace(ROUTE, top=2), "question")
    program = Program(ROUTE(Input("question")))
    assert {"answer.top", "answer.gate.bias", "answer.experts.law.instruction"} <= program.parameters.keys()
    assert program.parameters["answer.top"].check(3) == 3
    assert program.output_node.layer.summary == "1 of maths, history, law"
    blind = Program(replace(ROUTE, gate=replace(GATE, scores="winner"))(Input("question")))
    with pytest.raises(ContentError, match="from 1 to 1, found 2"):
        blind.replace({"answer.top": 2})


def test_in_a_task_file_the_experts_names_are_the_choices_of_the_gate() -> None:
    spec = {
        "layer": "route",
        "inputs": ["question"],
        "gate": {"layer": "predict", "instruction": "Which?", "bias": {"two": 1.0}},
        "experts": {name: {"layer": "predict", "instruction": name} for name in ("one", "two")},
    }
    program = Program.from_mapping(
        {"reply": spec, "end": {"layer": "predict", "inputs": ["reply"], "instruction": "x"}}
    )
    gate = program.node("reply").layer.parts["gate"]
    assert isinstance(gate, Predict)
    assert (gate.choices, gate.bias, gate.outputs) == (("one", "two"), (0.0, 1.0), ("expert",))
    assert program.node("reply").layer.outputs == ("reply",)
    assert Program.from_mapping(program.to_mapping()) == program


def test_route_costs_the_gate_and_the_dearest_expert_as_often_as_experts_run() -> None:
    dear = replace(EXPERTS["law"], max_tokens=500)
    route = Route(GATE, {**EXPERTS, "law": dear}, top=2)
    gate, most = GATE.cost({"question": 40}), dear.cost({"question": 40})
    assert route.cost({"question": 40}) == Cost(
        3,
        gate.read + 2 * max(most.read, *(part.cost({"question": 40}).read for part in EXPERTS.values())),
        1000,
        {"answer": 500},
    )


ONE = {"layer": "predict", "instruction": "x"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "node 'a': experts: expected a mapping of at least two experts by name"),
        ({"experts": {"x": ONE}}, "node 'a': experts: expected a mapping of at least two experts by name"),
        ({"experts": {"x": ONE, "y": ONE}}, "node 'a': gate: expected a mapping with a layer"),
        ({"experts": {"x": {}, "y": ONE}, "gate": ONE}, "node 'a': experts.x: expected a mapping with a layer"),
        ({"experts": {"x-y": ONE, "y": ONE}, "gate": ONE}, "node 'a': expert name 'x-y': use letters"),
        (
            {"experts": {"x": ONE, "y": ONE}, "gate": {**ONE, "choices": ["x", "z"]}},
            "node 'a': gate: expected the experts as choices (x, y), found x, z",
        ),
        (
            {"experts": {"x": ONE, "y": {**ONE, "outputs": ["b"]}}, "gate": ONE},
            "node 'a': experts.y: it gives b, the first expert gives a: name their outputs alike",
        ),
        (
            {"experts": {"x": ONE, "y": ONE}, "gate": ONE, "top": 3},
            "node 'a': top: expected a number from 1 to 2, found 3",
        ),
        ({"experts": {"x": ONE, "y": ONE}, "gate": ONE, "k": 1}, "node 'a': unknown key 'k'"),
    ],
)
def test_route_names_what_is_wrong(spec: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "route", "inputs": ["question"], **spec}})
    assert str(raised.value).startswith(says)


@pytest.mark.model
def test_route_with_a_real_model() -> None:
    gate = Predict("Is the question about numbers or about people?", output="expert", choices=("numbers", "people"))
    experts = {
        "numbers": Predict("Answer with a number.", max_tokens=4),
        "people": Predict("Answer with a name.", max_tokens=4),
    }
    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        for top in (1, 2):
            flow = perform("node", Route(gate, experts, top), {"question": "How much is two plus two?"})
            step = runtime.run(flow)
            assert step.error is None
            assert step.steps[0].probabilities is not None
            ranked = sorted(step.steps[0].probabilities.items(), key=lambda item: -item[1])[:top]
            assert [(inner.node, inner.value) for inner in step.steps[1:]] == [
                (f"experts.{name}", probability) for name, probability in ranked
            ]
            assert step.outputs == step.steps[1].outputs
