"""Refine: when it goes on, what it keeps, what its parts are shown, and whom it blames."""

from collections.abc import Callable
from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Refine, Sequential
from engine.records import Score, Step

DRAFT = Predict("Solve it.")
SELF = Refine(DRAFT)
CRITIC, REVISER, JUDGE = "what is wrong", "Write a better answer", "Which one"


def in_turn(*texts: str) -> Callable[[Any], str]:
    """One text after another."""
    left = list(texts)
    return lambda request: left.pop(0)


def likes(*texts: str) -> Callable[[Score], list[float]]:
    """Prefers an earlier one of these texts to a later one by a nat a place."""

    def judge(request: Score) -> list[float]:
        lines = request.prompt.messages[-1].text.splitlines()  # type: ignore[union-attr]
        return [-float(texts.index(line.partition(": ")[2])) for line in lines[-2:]]

    return judge


def self_refine(draft: str, critiques: list[str], revisions: list[str], liked: list[str]) -> Script:
    answers = {CRITIC: in_turn(*critiques), REVISER: in_turn(*revisions), JUDGE: likes(*liked)}
    return Script({"Solve it.": draft, **answers})


def names(step: Step) -> list[str]:
    return [inner.node for inner in step.steps]


def test_a_revision_is_kept_where_it_is_better_and_the_first_that_is_not_ends_it() -> None:
    step = done(SELF, self_refine("a", ["weak", "dull"], ["b", "c"], ["b", "c", "a"]), question="Q")
    assert step.outputs == {"answer": "b"}
    assert names(step) == ["of", "critique 1", "revise 1", "critique 2", "revise 2"]
    assert [inner.value for inner in step.steps] == [None, None, 2.0, None, -1.0]
    assert step.steps[2].inputs == {"question": "Q", "answer": "a", "critique": "weak"}
    assert step.steps[3].inputs == {"question": "Q", "answer": "b", "earlier_critiques": "weak"}
    assert step.steps[4].inputs == {"question": "Q", "answer": "b", "critique": "weak\ndull"}
    assert all(len(inner.calls) == 1 for inner in step.steps)
    assert len(step.calls) == 4, "two judgements, each in both orders"


def test_a_worse_revision_leaves_the_draft() -> None:
    step = done(SELF, self_refine("a", ["weak"], ["b"], ["a", "b"]), question="Q")
    assert step.outputs == {"answer": "a"}
    assert names(step) == ["of", "critique 1", "revise 1"]


def test_the_last_is_kept_unjudged_where_that_is_asked_for() -> None:
    layer = Refine(DRAFT, keep="last", rounds=3, memory=1)
    step = done(layer, self_refine("a", ["x", "y", "z"], ["b", "c", "d"], []), question="Q")
    assert step.outputs == {"answer": "d"}
    assert [inner.inputs["critique"] for inner in step.steps if inner.node.startswith("revise")] == ["x", "y", "z"]
    assert step.calls == ()


@pytest.mark.parametrize(
    ("critique", "revision", "made"),
    [("", "b", 2), ("OK.", "b", 2), ("Okay, it is fine", "b", 2), ("weak", "", 3), ("weak", "a", 3)],
)
def test_it_ends_where_nothing_is_found_wrong_or_nothing_new_comes(critique: str, revision: str, made: int) -> None:
    step = done(SELF, self_refine("a", [critique], [revision], ["b", "a"]), question="Q")
    assert step.outputs == {"answer": "a"}
    assert len(step.steps) == made


def test_a_part_that_fails_ends_it_and_a_draft_that_fails_is_an_error() -> None:
    typed = Refine(Predict("Solve it.", output={"answer": "int"}))
    failed = done(typed, self_refine("none", [], [], []), question="Q")
    assert str(failed.error).startswith("of: unparsed")
    kept = done(typed, self_refine("1", ["weak"], ["none"], []), question="Q")
    assert kept.outputs == {"answer": "1"}
    assert str(kept.steps[2].error).startswith("unparsed"), "a revision stays of the draft's type"


def test_what_cannot_be_judged_is_not_kept() -> None:
    script = Script({"Solve it.": "a", CRITIC: "weak", REVISER: "b " * 9000})
    step = done(SELF, script, question="Q")
    assert step.outputs == {"answer": "a"}
    assert str(step.steps[2].error).startswith("not judged: the prompt needs")


def test_closed_choices_are_chosen_among_again() -> None:
    layer = Refine(Predict("Solve it.", choices=("yes", "no")), keep="last", rounds=1)
    script = Script({CRITIC: "weak", REVISER: [-2.0, -1.0], "Solve it.": [-1.0, -2.0]})
    step = done(layer, script, question="Q")
    assert step.outputs == {"answer": "no"}
    assert step.steps[2].probabilities is not None


def test_only_the_main_output_of_the_draft_is_given_and_an_input_of_its_name_is_not_lost() -> None:
    layer = Refine(Predict("Solve it.", output=("why", "text")), keep="last", rounds=1)
    step = done(layer, self_refine("x\nText: draft", ["weak"], ["better"], []), text="original")
    assert step.outputs == {"text": "better"}
    assert step.steps[1].inputs == {"text": "original", "draft_text": "draft"}
    assert step.steps[2].inputs == {"text": "original", "draft_text": "draft", "critique": "weak"}
    found = gradients(layer, step, Script({}), "text")
    assert list(found.parameters) == ["revise", "critique", "of.instruction"]


TESTED = Refine(DRAFT, check=Predict("Test it.", output="verdict"), rounds=3, memory=2)


def reflexion(verdicts: list[str], revisions: list[str], liked: list[str]) -> Script:
    answers = {"Test it.": in_turn(*verdicts), CRITIC: in_turn("one", "two", "three"), REVISER: in_turn(*revisions)}
    return Script({"Solve it.": "a", **answers, JUDGE: likes(*liked)})


def test_it_ends_as_soon_as_the_check_passes() -> None:
    step = done(TESTED, reflexion(["Passed."], [], []), question="Q")
    assert names(step) == ["of", "check 1"]
    step = done(TESTED, reflexion(["1 is wrong", "ok"], ["b"], ["a", "b"]), question="Q")
    assert names(step) == ["of", "check 1", "critique 1", "revise 1", "check 2"]
    assert step.outputs == {"answer": "b"}, "what passes is kept, whatever the model likes"
    assert step.steps[2].inputs == {"question": "Q", "answer": "a", "check": "1 is wrong"}
    assert step.steps[4].inputs == {"question": "Q", "answer": "b"}


def test_with_a_check_it_tries_again_and_remembers_the_last_critiques() -> None:
    step = done(TESTED, reflexion(["A", "B", "C", "D"], ["b", "c", "d"], ["c", "a", "d", "b"]), question="Q")
    assert names(step)[-1] == "check 4"
    assert step.outputs == {"answer": "c"}
    critics = [inner.inputs for inner in step.steps if inner.node.startswith("critique")]
    assert [(seen["answer"], seen["check"]) for seen in critics] == [("a", "A"), ("a", "A"), ("c", "C")]
    assert [seen.get("earlier_critiques") for seen in critics] == [None, "one", "one\ntwo"]
    revisions = [inner for inner in step.steps if inner.node.startswith("revise")]
    assert [inner.inputs["critique"] for inner in revisions] == ["one", "one\ntwo", "two\nthree"]
    assert [inner.value for inner in revisions] == [-2.0, 1.0, -2.0]


def test_a_check_that_fails_says_by_its_error_what_is_wrong() -> None:
    layer = Refine(DRAFT, check=Predict("Test it.", output={"verdict": "int"}), rounds=1, keep="last")
    step = done(layer, reflexion(["crash", "1"], ["b"], []), question="Q")
    assert step.outputs == {"answer": "b"}
    assert step.steps[2].inputs["check"].startswith("unparsed")


def test_where_the_draft_was_kept_it_and_the_last_critique_hear_what_was_said() -> None:
    script = self_refine("a", ["weak"], ["b"], ["a", "b"])
    found = gradients(SELF, done(SELF, script, question="Q"), script, "question")
    assert found.parameters == {"critique": ["change instruction"], "of.instruction": ["change instruction"]}
    assert found.inputs == {"question": ["change question"]}
    about_critique, about_of, about_question = script.asked
    assert f"Instruction: {SELF.critique}" in about_critique
    assert "Answer: a\nCritique: weak\nMistake: It was wrong." in about_critique
    assert "Instruction: Solve it." in about_of
    assert "Answer: a\nMistake: It was wrong.\nIn one sentence, say how the question should" in about_question


def test_where_a_revision_was_kept_words_go_back_through_it_to_its_critique_and_to_the_draft() -> None:
    layer = Refine(DRAFT, rounds=1)
    script = self_refine("a", ["weak"], ["b"], ["b", "a"])
    found = gradients(layer, done(layer, script, question="Q"), script, "question")
    assert list(found.parameters) == ["revise", "critique", "of.instruction"]
    assert found.inputs == {"question": ["change question", "change question"]}
    instruction, answer, critique, question, of_critique, of_draft, of_question = script.asked
    asked = {"instruction": instruction, "answer": answer, "critique": critique, "question": question}
    for what, text in asked.items():
        assert f"Instruction: {layer.revise}" in text
        assert f"Mistake: It was wrong.\nIn one sentence, say how the {what} should" in text
    assert "Critique: weak\nMistake: change critique" in of_critique
    assert f"Instruction: {layer.critique}" in of_critique
    assert "Instruction: Solve it." in of_draft
    assert "Mistake: change answer" in of_draft
    assert "Mistake: change answer" in of_question


def test_a_chain_of_kept_revisions_is_followed_and_a_last_critique_that_led_nowhere_hears_too() -> None:
    layer = Refine(DRAFT, rounds=3)
    script = self_refine("a", ["one", "two", "three"], ["b", "c", "d"], ["c", "d", "b", "a"])
    step = done(layer, script, question="Q")
    assert step.outputs == {"answer": "c"}
    gradients(layer, step, script)
    assert [fingerprint(text) for text in script.asked] == [
        ("three", "instruction"),  # the last critique, which led to d, and d was not kept
        ("one\ntwo", "instruction"),  # revise 2 itself, then the text and the critiques that it read
        ("one\ntwo", "answer"),
        ("one\ntwo", "critique"),
        ("two", "instruction"),  # the critique before revise 2
        ("one", "instruction"),  # revise 1, which wrote the text that revise 2 read
        ("one", "answer"),
        ("one", "critique"),
        ("one", "instruction"),  # the critique before revise 1
        ("", "instruction"),  # the draft
    ]


def fingerprint(asked: str) -> tuple[str, str]:
    """The critiques that stand in the step that is asked about, and what of it should change."""
    critiques = asked.partition("\nCritique: ")[2].partition("\nAnswer: ")[0].partition("\nMistake: ")[0]
    return critiques, asked.partition("say how the ")[2].partition(" ")[0]


def test_a_check_that_passed_a_wrong_answer_is_blamed_and_one_that_found_fault_is_not() -> None:
    script = reflexion(["1 is wrong", "ok"], ["b"], [])
    found = gradients(TESTED, done(TESTED, script, question="Q"), script)
    assert list(found.parameters) == ["check.instruction", "revise", "critique", "of.instruction"]
    assert "Instruction: Test it." in script.asked[0]
    assert "Verdict: ok\nMistake: It was wrong." in script.asked[0]
    script = reflexion(["A", "B", "C", "D"], ["b", "c", "d"], ["a", "b", "c", "d"])
    found = gradients(TESTED, done(TESTED, script, question="Q"), script)
    assert list(found.parameters) == ["critique", "of.instruction"]


def test_a_draft_that_failed_is_blamed_alone() -> None:
    layer = Refine(Predict("Solve it.", output={"answer": "int"}))
    script = self_refine("none", [], [], [])
    found = gradients(layer, done(layer, script, question="Q"), script)
    assert found.parameters == {"of.instruction": ["change instruction"]}


def test_refine_is_written_and_read_alike() -> None:
    round_trip(SELF, "question")
    round_trip(TESTED, "question")
    chain = Sequential({"plan": Predict("Plan.", output="plan"), "label": Predict("Label.", output="label")})
    full = Refine(chain, DRAFT, "C", "R", 1, "last", 2, "W", "plain", 9)
    round_trip(full, "question")
    program = Program(full(Input("question")))
    own = [name.removeprefix("label.") for name in program.parameters if ".of." not in name and ".check." not in name]
    assert own == ["critique", "revise", "rounds", "keep", "memory", "question", "style", "max_tokens"]
    part = {"layer": "predict", "instruction": "x"}
    read = Program.from_mapping({"a": {"layer": "refine", "inputs": ["q"], "of": part, "check": part}})
    layer = read.node("a").layer
    assert isinstance(layer, Refine)
    assert layer.check is not None
    assert layer.check.outputs == ("verdict",)
    assert layer.part_inputs("check", ("q",)) == ("q", "a")


def test_refine_costs_every_round_it_may_take() -> None:
    one, two = (Refine(DRAFT, rounds=rounds).cost({"question": 100}) for rounds in (1, 2))
    assert (one.calls, two.calls) == (1 + 4, 1 + 8)
    assert (one.written, two.written) == (64 + 64 + 256, 64 + 2 * (64 + 256))
    assert one.gives == two.gives == {"answer": 256}
    assert Refine(DRAFT, keep="last", check=DRAFT, rounds=2).cost({"question": 100}).calls == 1 + 1 + 2 * 3


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"of": None}, "node 'a': of: expected a mapping with a layer"),
        ({"check": {"layer": "predict"}}, "node 'a': check: an instruction is missing"),
        ({"keep": "best"}, "node 'a': keep: expected 'likelihood' or 'last', found 'best'"),
        ({"rounds": 0}, "node 'a': rounds: expected a number from 1 to 8, found 0"),
        ({"critique": " "}, "node 'a': critique: expected text"),
        ({"round": 2}, "node 'a': unknown key 'round': did you mean 'rounds'?"),
    ],
)
def test_refine_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    whole = {"layer": "refine", "inputs": ["question"], "of": {"layer": "predict", "instruction": "x"}, **spec}
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": whole})
    assert str(raised.value).startswith(says)


@pytest.mark.model
def test_refine_on_the_embedded_model_keeps_a_text_that_one_of_its_steps_wrote() -> None:
    from engine.opening import open_runtime
    from engine.program.layer import perform

    layer = Refine(Predict("Answer in one sentence.", max_tokens=24), max_tokens=24)
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        for keep in ("likelihood", "last"):
            refined = Refine(layer.of, keep=keep, max_tokens=24)  # type: ignore[arg-type]
            step: Step = runtime.run(perform("answer", refined, {"question": "Why is the sky blue?"}))
            assert step.error is None
            writers = [inner for inner in step.steps if inner.node.startswith(("of", "revise"))]
            texts = [inner.outputs.get("answer") for inner in writers]
            assert step.outputs["answer"] in texts
            if keep == "likelihood":
                better = [inner for inner in writers if inner.value is not None and inner.value > 0]
                assert step.outputs["answer"] == (better[-1].outputs["answer"] if better else texts[0])
