"""Vote: which answer wins, what its votes weigh, whom it blames, and that it is written and read alike."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Retrieve, Sequential, Vote
from engine.program.parameters import Demo
from engine.records import Chat, Generate, Plain, Score, Step
from engine.tasks.answers import answer_key

ASK = Predict("Solve it.", temperature=0.7)
COLOUR = ("red", "green", "blue")


def samples(*texts: str) -> Callable[[Generate], str]:
    """What a layer writes, sample by sample."""
    return lambda request: texts[request.sample - 2]


def vote(*texts: str, **settings: Any) -> Step:
    return done(Vote(ASK, n=len(texts), **settings), Script({"Solve it.": samples(*texts)}), question="Q")


@pytest.mark.parametrize(
    ("texts", "wins"),
    [
        (("41", "42", "42.0"), "42"),
        (("$42", "41", "42"), "$42"),
        (("Paris", "London", " paris "), "Paris"),
        (("b", "a", "a", "b"), "b"),
        (("only",), "only"),
        (("", " ", "x"), "x"),
    ],
)
def test_the_answer_of_most_samples_wins_and_ties_go_to_the_first(texts: tuple[str, ...], wins: str) -> None:
    step = vote(*texts)
    assert step.outputs == {"answer": wins}
    assert [inner.node for inner in step.steps] == [f"of {number}" for number in range(1, len(texts) + 1)]
    assert step.probabilities is None, "open text has none"


def test_every_sample_is_judged_by_the_share_of_its_answer() -> None:
    step = vote("42", "41", "$42", "")
    assert step.value == pytest.approx(2 / 3)
    assert [inner.value for inner in step.steps] == pytest.approx([2 / 3, 1 / 3, 2 / 3, None])


def test_other_outputs_come_from_the_first_sample_that_won() -> None:
    reason = Predict("Solve it.", output=("why", "answer"), temperature=0.7)
    texts = ["bad\nAnswer: 41", "good\nAnswer: 42", "better\nAnswer: 42"]
    step = done(Vote(reason, n=3), Script({"Solve it.": samples(*texts)}), question="Q")
    assert step.outputs == {"why": "good", "answer": "42"}
    assert list(step.outputs) == ["why", "answer"]


def test_a_sample_that_failed_does_not_vote_and_all_failed_is_an_error() -> None:
    number = Predict("Solve it.", output={"answer": "int"}, temperature=0.7)
    step = done(Vote(number, n=3), Script({"Solve it.": samples("none", "41", "41")}), question="Q")
    assert step.outputs == {"answer": "41"}
    assert step.value == 1.0
    failed = done(Vote(number, n=2), Script({"Solve it.": samples("no", "none")}), question="Q")
    assert str(failed.error).startswith("of 1: unparsed")
    assert len(failed.steps) == 2
    assert vote("", "").error == "every sample was blank"


def choosers(weights: str) -> Vote:
    parts = {name: Predict(f"{name} chooses.", choices=COLOUR) for name in ("first", "second", "third")}
    return Vote(branches=parts, weights=weights)  # type: ignore[arg-type]


LIKELY = Script({"first": [-0.1, -2.0, -9.0], "second": [-1.0, -0.9, -9.0], "third": [-1.0, -0.9, -9.0]})


def test_closed_choices_are_counted() -> None:
    step = done(choosers("count"), LIKELY, question="Q")
    assert step.outputs == {"answer": "green"}
    assert step.probabilities == pytest.approx({"red": 1 / 3, "green": 2 / 3, "blue": 0.0})
    assert list(step.probabilities or ()) == list(COLOUR)


def test_by_likelihood_closed_choices_are_pooled_linearly() -> None:
    step = done(choosers("likelihood"), LIKELY, question="Q")
    pooled = [sum((inner.probabilities or {})[colour] for inner in step.steps) / 3 for colour in COLOUR]
    assert step.outputs == {"answer": "red"}
    assert list((step.probabilities or {}).values()) == pytest.approx(pooled)
    assert step.value == pytest.approx(pooled[0])
    assert step.calls == (), "nothing more is asked"


def test_a_choice_may_win_that_no_branch_would_have_taken() -> None:
    layer = Vote(branches={n: Predict(f"{n} chooses.", choices=COLOUR) for n in ("a", "b")}, weights="likelihood")
    script = Script({"a chooses": [-0.5, -0.9, -9.0], "b chooses": [-9.0, -0.9, -0.5]})
    step = done(layer, script, question="Q")
    assert step.outputs == {"answer": "green"}
    found = gradients(layer, step, script)
    assert list(found.parameters) == ["branches.a.instruction", "branches.b.instruction"]


def test_by_likelihood_open_answers_weigh_what_the_prompt_of_the_part_makes_of_them() -> None:
    asked: list[Score] = []

    def answers(request: Generate | Score) -> Any:
        if isinstance(request, Generate):
            return ["42", "41", "41.0", "7"][request.sample - 2]
        asked.append(request)
        return [-1.0, -3.0, -9.0]

    part = Predict("Solve it.", temperature=0.7, style="plain", demos=(Demo({"question": "1"}, {"answer": "one"}),))
    step = done(Vote(part, n=4, weights="likelihood"), Script({"Solve it.": answers}), question="Q")
    (score,) = asked
    assert score.continuations == (" 42", " 41", " 7")
    assert score.prompt == Plain("Solve it.\n\nQuestion: 1\nAnswer: one\n\nQuestion: Q\nAnswer:")
    assert step.outputs == {"answer": "42"}, "e^-1 is more than twice e^-3"
    assert len(step.calls) == 1
    assert step.probabilities is None


def test_a_part_that_reasons_is_asked_for_the_answer_alone() -> None:
    reason = Predict("Solve it.", output=("why", "answer"), temperature=0.7)
    prompts = []

    def answers(request: Generate | Score) -> Any:
        if isinstance(request, Generate):
            return ["x\nAnswer: 1", "y\nAnswer: 2"][request.sample - 2]
        prompts.append(request.prompt)
        return [-2.0, -1.0]

    step = done(Vote(reason, n=2, weights="likelihood"), Script({"Solve it.": answers}), question="Q")
    assert step.outputs == {"why": "y", "answer": "2"}
    assert isinstance(prompts[0], Chat)
    assert prompts[0].lead == ""


def test_open_branches_are_weighed_by_a_plain_prompt_and_equal_answers_without_asking() -> None:
    parts = {name: Predict(f"{name} says.") for name in ("a", "b")}
    layer = Vote(branches=parts, weights="likelihood")
    script = Script({"a says.": "1", "b says.": "2", "Question: Q\nAnswer:": [-2.0, -1.0]})
    assert done(layer, script, question="Q").outputs == {"answer": "2"}
    same = done(layer, Script({"a says.": "1", "b says.": "1.0"}), question="Q")
    assert same.outputs == {"answer": "1"}
    assert same.calls == ()


def test_answers_that_cannot_be_weighed_are_an_error() -> None:
    long = {"question": "word " * 8191}
    layer = Vote(branches={n: Predict(n, style="plain") for n in ("a", "b")}, weights="likelihood")
    script = Script({"a\n\n": lambda request: "1", "b\n\n": lambda request: "2"})
    step = done(layer, script, **long)
    assert "the prompt needs" in str(step.error)


def test_the_samples_that_voted_for_the_answer_are_blamed_each_different_one_once_and_two_at_most() -> None:
    reason = Predict("Solve it.", output=("why", "answer"), temperature=0.7)
    layer = Vote(reason, n=5)
    texts = ["a\nAnswer: 7", "b\nAnswer: 8", "a\nAnswer: 7", "c\nAnswer: 7.0", "d\nAnswer: 7"]
    script = Script({"Solve it.": samples(*texts)})
    found = gradients(layer, done(layer, script, question="Q"), script, "question")
    assert found.parameters == {"of.instruction": ["change instruction"]}, "equal critiques stand once"
    assert found.inputs == {"question": ["change question"]}
    assert ["Why: a" in text for text in script.asked] == [True, True, False, False]
    assert ["Why: c" in text for text in script.asked] == [False, False, True, True]
    assert all("Mistake: It was wrong." in text for text in script.asked)


def test_branches_that_voted_otherwise_are_left_in_peace() -> None:
    layer = choosers("count")
    script = Script(LIKELY.answers)
    found = gradients(layer, done(layer, script, question="Q"), script)
    assert list(found.parameters) == ["branches.second.instruction", "branches.third.instruction"]
    assert ["second chooses." in script.asked[0], "third chooses." in script.asked[1]] == [True, True]


def test_where_all_failed_the_first_are_blamed() -> None:
    layer = Vote(branches={name: Predict(f"{name}!", output={"answer": "int"}) for name in ("a", "b", "c")})
    script = Script({"!": "none"})
    found = gradients(layer, done(layer, script, question="Q"), script)
    assert list(found.parameters) == ["branches.a.instruction", "branches.b.instruction"]


def test_what_is_sampled_stays_sampled() -> None:
    program = Program(Vote(ASK)(Input("question")))
    assert program.parameters["answer.of.temperature"].low > 0  # type: ignore[union-attr]
    with pytest.raises(ContentError, match="expected a number from"):
        program.replace({"answer.of.temperature": 0})
    warm = program.replace({"answer.of.temperature": 1.2, "answer.n": 9, "answer.weights": "likelihood"})
    assert warm.node("answer").layer == Vote(Predict("Solve it.", temperature=1.2), n=9, weights="likelihood")
    chain = Sequential({"plan": Predict("Plan.", output="plan", temperature=1.0), "answer": Predict("Solve.")})
    lows = {name: value for name, value in Vote(chain).parameters(("q",)).items() if name.endswith("temperature")}
    assert [value.low > 0 for value in lows.values()] == [True, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda: Vote(), "expected one of the two"),
        (lambda: Vote(ASK, {"a": ASK}), "expected one of the two"),
        (lambda: Vote(Predict("x")), "of: all samples are alike at temperature 0"),
        (lambda: Vote(Predict("x", choices=COLOUR)), "of: a layer that always answers alike"),
        (lambda: Vote(Retrieve("kb")), "of: a layer that always answers alike"),
        (lambda: Vote(branches={"a": ASK}, n=3), "n has no meaning with branches"),
        (lambda: Vote(branches={"a": ASK, "b": Retrieve("kb")}), "branches give different outputs, answer, passages"),
    ],
)
def test_vote_refuses_what_cannot_be_voted_on(layer: Callable[[], Vote], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        layer()
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"of": {"layer": "predict", "instruction": "x"}}, "node 'a': of: all samples are alike"),
        ({"of": {"instruction": "x"}}, "node 'a': of: expected a mapping with a layer"),
        ({"branches": {"x": 3}}, "node 'a': branches: expected a mapping with a layer"),
        ({"branches": {"x": {"layer": "predict", "instruction": "x", "k": 3}}}, "node 'a': branches.x: unknown key"),
        ({"branches": {"x": {"layer": "retrieve", "index": "kb"}}, "weights": "x"}, "node 'a': weights: expected"),
    ],
)
def test_vote_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "vote", "inputs": ["question"], **spec}})
    assert str(raised.value).startswith(says)


def test_vote_is_written_and_read_alike() -> None:
    round_trip(Vote(ASK), "question")
    round_trip(Vote(Predict("Solve it.", ("why", "verdict"), temperature=1.0), n=3, weights="likelihood"), "question")
    round_trip(choosers("likelihood"), "question")


def test_branches_share_the_field_of_the_first_that_names_one() -> None:
    named = {"layer": "predict", "instruction": "x", "outputs": ["why", "label"]}
    other = {"layer": "predict", "instruction": "y"}
    spec = {"layer": "vote", "inputs": ["q"], "branches": {"a": named, "b": other}}
    program = Program.from_mapping({"a": spec, "b": {"layer": "predict", "instruction": "z", "inputs": ["a"]}})
    assert program.node("a").layer.outputs == ("label",)
    assert program.node("b").sources == {"a": "a.label"}


def test_vote_costs_its_samples_and_one_request_to_weigh_open_answers() -> None:
    part = Predict("x" * 40, temperature=0.7, max_tokens=20)
    count, likelihood = (Vote(part, n=3, weights=w).cost({"question": 100}) for w in ("count", "likelihood"))  # type: ignore[arg-type]
    assert (count.calls, count.read, count.written, count.gives) == (3, 330, 60, {"answer": 20})
    assert (likelihood.calls, likelihood.read, likelihood.written) == (4, 330 + 110 + 60, 60)
    assert choosers("likelihood").cost({"question": 100}).calls == 3


@pytest.mark.parametrize(
    "alike",
    [
        ("42", "42.0", "$42", " 42 ", "+42", "42."),
        ("1,000", "1e3", "1000.00"),
        ("-0", "0", "0.0", ".0"),
        ("A b", "a  B"),
    ],
)
def test_alike_answers_have_one_key(alike: tuple[str, ...]) -> None:
    assert len({answer_key(text) for text in alike}) == 1


def test_different_answers_have_different_keys() -> None:
    apart = [
        "42",
        "-42",
        "42%",
        "4,2",
        "1,2,3",
        "123",
        "42 km",
        "1e999999",
        "",
        "123456789012345678",
        "123456789012345679",
    ]
    assert len({answer_key(text) for text in apart}) == len(apart)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_number_has_one_key_however_it_is_written(number: Decimal) -> None:
    assert len({answer_key(text) for text in (f"{number}", f"{number:,}", f"{number}00", f"{number:e}")}) == 1


@given(st.text(max_size=12))
def test_the_key_of_any_text_ignores_case_and_white_space_and_is_its_own_key(text: str) -> None:
    key = answer_key(text)
    assert answer_key(f" {text}\n") == key
    assert answer_key(key) == key


@pytest.mark.model
def test_vote_on_the_embedded_model_draws_samples_that_differ_and_counts_them() -> None:
    from engine.opening import open_runtime
    from engine.program.layer import perform

    part = Predict("Name one animal.", output="animal", temperature=1.5, max_tokens=6, style="plain", stop=("\n",))
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        for weights in ("count", "likelihood"):
            layer = Vote(part, n=6, weights=weights)  # type: ignore[arg-type]
            step: Step = runtime.run(perform("animal", layer, {"place": "a farm"}))
            texts = [inner.outputs["animal"] for inner in step.steps]
            assert len(set(texts)) > 1
            assert step.outputs["animal"] in texts
            shares = {
                answer_key(inner.outputs["animal"]): inner.value for inner in step.steps if inner.value is not None
            }
            assert sum(shares.values()) == pytest.approx(1.0)
            assert step.value == max(shares.values())
