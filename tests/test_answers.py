"""Answers that edit all parameters at once: what the grammar lets a model write can be read, and nothing else harms."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_gbnf import Gbnf

from engine.errors import ContentError
from engine.feedback.propagation.answers import answer_grammar, answer_tokens, read_answer
from engine.feedback.propagation.edits import editable, limits, values
from engine.feedback.propagation.variables import Variables
from engine.flows import Flow
from engine.program.graph import Program
from engine.program.layer import Input, Layer, LayerResult
from engine.program.layers import Code, Memory, Predict, Vote
from engine.program.parameters import Bias, Choice, Demo, Demos, Notes, Number, Parameter, Source, Text
from engine.program.typed.fields import as_fields
from engine.program.typed.json_values import Fixed

QUESTION = Input("question")


def program() -> Program:
    """Texts, code, choices, numbers, notes, demos and biases, some of them in parts."""
    memory = Memory(("Rome is far.",), write="insights")(QUESTION, name="memory")
    sampled = Predict("Plan the work.", output=("reason", "plan"), temperature=0.7, demos=(
        Demo({"question": "Q", "memory": "M"}, {"reason": "R", "plan": "P"}),
    ))  # fmt: skip
    plan = Vote(sampled, n=3)(QUESTION, memory, name="vote")
    size = Code("value = len(plan)", output="size")(plan)
    kind = Predict("Which kind?", output="kind", choices=("new", "old"))(plan, size)
    return Program(kind)


def named(program: Program, also: tuple[str, ...] = ()) -> dict[str, Parameter]:
    """Parameters by their variables."""
    names = Variables.of(program).parameters
    return {names[name]: parameter for name, parameter in editable(program, also).items()}


ALSO = ("memory.entries", "vote.of.demos", "kind.demos", "kind.bias")


def test_texts_code_choices_and_numbers_can_be_edited_and_what_else_is_named() -> None:
    by_default = editable(program())
    assert {type(parameter) for parameter in by_default.values()} == {Text, Source, Choice, Number}
    assert "vote.of.instruction" in by_default
    assert set(editable(program(), ALSO)) - set(by_default) == set(ALSO)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (Text("a"), "text of at most 300 characters"),
        (Text("a", 40), "text of at most 40 characters"),
        (Source("value = 1"), "Python code of at most 1200 characters"),
        (Choice("chat", ("chat", "plain")), '"chat" or "plain"'),
        (Number(0.7, 0, 2), "number from 0 to 2"),
        (Number(5, 1, 64, whole=True), "whole number from 1 to 20"),
        (Number(40, 1, 64, whole=True), "whole number from 10 to 64"),
        (Number(0, 0, 64, whole=True), "whole number from 0 to 4"),
        (Number(-3, -8, 8, whole=True), "whole number from -8 to 8"),
        (Notes((), 3), "list of at most 3 texts"),
        (Bias((), ("a", "b")), "list of numbers, one each for a, b"),
        (Demos((), ("q",), ("a",)), "list of at most 4 solved examples"),
    ],
)
def test_limits_are_told_in_words(parameter: Parameter, said: str) -> None:
    assert limits(parameter) == said


PARAMETERS = st.one_of(
    st.builds(Text, st.just("old"), st.integers(1, 400)),
    st.builds(Source, st.just("value = 0"), st.integers(1, 50)),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=2, max_size=4, unique=True).map(
        lambda options: Choice(options[0], tuple(options))
    ),
    st.tuples(st.floats(-50, 50), st.floats(0.01, 100)).map(lambda pair: Number(pair[0], pair[0], sum(pair))),
    st.tuples(st.integers(-50, 50), st.integers(0, 9), st.integers(1, 3000)).map(
        lambda three: Number(three[0] + three[1], three[0], three[0] + three[1] + three[2], whole=True)
    ),
    st.builds(Notes, st.just(()), st.integers(1, 9), st.integers(1, 50)),
    st.just(Bias((), ("a", "b", "c"))),
    st.just(Demos((), ("q", "m"), ("size", "kind"), as_fields({"size": "int", "kind": {"choices": ["x", "y"]}}))),
)


@settings(max_examples=40)
@given(PARAMETERS, st.integers(0, 10**6))
def test_whatever_the_grammar_describes_a_parameter_can_take(parameter: Parameter, seed: int) -> None:
    grammar = Gbnf(answer_grammar({"it": parameter}))
    for draw in range(3):
        answer = json.loads(grammar.sample(random.Random(f"{seed} {draw}")))
        assert list(answer) == ["it"]
        read = values(parameter).read(answer["it"])
        assert parameter.check(read) == parameter.check(answer["it"])


def test_round_numbers_stay_within_limits_that_are_not() -> None:
    part = values(Number(0.5, 0.087, 0.7999999999999999))  # 0.8 is what 8 tenths of it come to in floating point
    assert isinstance(part, Fixed)
    assert (part.values[0], part.values[-1], len(part.values)) == (0.09, 0.79, 71)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.booleans())
def test_every_answer_of_the_grammar_is_read_in_full_and_can_be_put_into_the_program(
    seed: int, everything: bool
) -> None:
    edited, also = program(), ALSO if everything else ()
    parameters = named(edited, also)
    names = {variable: name for name, variable in Variables.of(edited).parameters.items()}
    answer = Gbnf(answer_grammar(parameters)).sample(random.Random(seed))
    written = json.loads(answer)
    edits = read_answer(answer, edited, also)
    assert written
    assert list(written) == [variable for variable in parameters if variable in written], "each once, in their order"
    changed = edited.replace(edits)
    for variable, value in written.items():
        expected = " ".join(value.split()) if isinstance(parameters[variable], Text) else value
        assert changed.parameters[names[variable]].value == parameters[variable].check(expected)
    assert all(edited.parameters[name].value != value for name, value in edits.items())


def test_the_grammar_of_a_large_program_is_still_one_and_of_a_huge_one_an_error() -> None:
    many = {f"node{number}_instruction": Text("a") for number in range(200)}
    Gbnf(answer_grammar(dict(list(many.items())[:60])))
    with pytest.raises(ContentError, match="at most 20,000"):
        answer_grammar(many)


def test_an_answer_of_full_length_has_the_tokens_it_takes() -> None:
    parameters = named(program())
    longest = sum(len(limits(parameter)) for parameter in parameters.values() if isinstance(parameter, Choice))
    assert answer_tokens(parameters) > (5 * 300 + 1200 + longest) / 3


# ── answers that no grammar held ─────────────────────────────────────────────────────────────────


def simple() -> Program:
    draft = Predict("Draft it.", output=("reason", "draft"))(QUESTION)
    return Program(Predict("Solve it.", output="answer", temperature=0.5)(draft, draft["reason"]))


GOOD = '{"draft_instruction": "Think \\"twice\\".", "answer_style": "plain", "answer_max_tokens": 128}'
EDITS = {"draft.instruction": 'Think "twice".', "answer.style": "plain", "answer.max_tokens": 128}


@pytest.mark.parametrize(
    ("written", "edits"),
    [
        (GOOD, EDITS),
        (f"Here is my answer:\n```json\n{GOOD}\n```\nI hope it helps.", EDITS),
        ('{ "answer_style" : "plain" , "draft_style":"plain"}', {"answer.style": "plain", "draft.style": "plain"}),
        ('{"answer_style": "chat", "answer_temperature": 0.5}', {}),  # what it is already
        ('{"answer_style": "plain", "answer_style": "chat"}', {}),  # the last one counts
        ('{"answer_style": "loud", "draft_style": "plain"}', {"draft.style": "plain"}),
        ('{"answer_style": ["plain"], "draft_style": null}', {}),
        ('{"answer_temperature": 3, "draft_temperature": 1}', {"draft.temperature": 1.0}),
        ('{"answer_temperature": NaN, "draft_temperature": Infinity}', {}),
        ('{"answer_temperature": true, "draft_temperature": "1"}', {}),
        ('{"answer_max_tokens": 12.5, "draft_max_tokens": 100000}', {}),
        ('{"answer_max_tokens": 1e2, "draft_max_tokens": 255}', {"draft.max_tokens": 255}),
        ('{"answer_instruction": "  Say\\n it. "}', {"answer.instruction": "Say it."}),
        ('{"answer_instruction": " \\n "}', {}),
        ('{"answer_instruction": "\\ud800 half"}', {}),
        ('{"answer_instruction": "nul \\u0000"}', {}),
        (f'{{"answer_instruction": "{"x" * 301}"}}', {}),
        ('{"answer.instruction": "Not a variable."}', {}),
        ('{"answer_demos": [], "question": "Q", "answer": "A", "no_such": 1}', {}),
        ('{"suggestion": {"answer_style": "plain"}}', {}),
        (f'{{"answer_max_tokens": {"9" * 5000}}}', {}),
        ('{"answer_style": ' + "[" * 100_000, {}),
        ('{"answer_style": "plain", ' + '"x": {' * 50_000, {"answer.style": "plain"}),
    ],
)
def test_an_answer_is_read_as_far_as_it_is_valid(written: str, edits: dict[str, Any]) -> None:
    assert read_answer(written, simple()) == edits


def test_of_an_answer_that_was_cut_off_the_whole_pairs_are_read() -> None:
    known = list(EDITS.items())
    lengths = []
    for end in range(len(GOOD) + 1):
        edits = read_answer(GOOD[:end], simple())
        assert list(edits.items()) == known[: len(edits)]
        lengths.append(len(edits))
    assert lengths == sorted(lengths)
    assert lengths[GOOD.index(', "answer_max_tokens"')] == 1
    assert lengths[-2:] == [2, 3], "a number at the end may not be all of it"


def test_lists_are_read_as_far_as_they_hold_plain_data() -> None:
    for written, edits in (
        ('{"memory_entries": ["Oslo is near."]}', {"memory.entries": ("Oslo is near.",)}),
        ('{"memory_entries": ["\\ud800"]}', {}),
        ('{"kind_bias": [0.5, NaN], "memory_entries": "Oslo."}', {}),
        ('{"vote_of_demos": [{"inputs": {"question": "\\udfff", "memory": ""}, "outputs": {}}]}', {}),
    ):
        assert read_answer(written, program(), ALSO) == edits
        assert read_answer(written, program()) == {}, "not by default"


@dataclass(frozen=True, slots=True)
class Span(Layer):
    """A layer whose two numbers must be in order. It has no kind: nobody needs to know of it."""

    low: int = 2
    high: int = 4
    output: str = "answer"

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ContentError("low is above high")

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        yield from ()
        return LayerResult({"answer": f"{self.low} to {self.high}"})

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        return {"low": Number(self.low, 1, 9, whole=True), "high": Number(self.high, 1, 9, whole=True)}


@pytest.mark.parametrize(
    ("written", "edits"),
    [
        ({"answer_low": 5, "answer_high": 9}, {"answer.low": 5, "answer.high": 9}),
        ({"answer_high": 3, "answer_low": 5}, {"answer.high": 3}),
        ({"answer_low": 5, "answer_high": 3}, {"answer.high": 3}),
    ],
)
def test_values_that_do_not_go_together_are_taken_one_after_another_as_far_as_they_do(
    written: dict[str, int], edits: dict[str, int]
) -> None:
    assert read_answer(json.dumps(written), Program(Span()(QUESTION))) == edits


@given(st.text(), st.integers(0, 3))
def test_no_text_breaks_the_reading(noise: str, place: int) -> None:
    texts = [noise, f"{noise}{GOOD}", GOOD.replace("twice", noise), f'{{"answer_instruction": {json.dumps(noise)}}}']
    edited = simple()
    edits = read_answer(texts[place], edited)
    assert edited.replace(edits).fingerprint
    assert set(edits) <= set(editable(edited))


NAMES: list[tuple[Callable[[], Program], dict[str, str]]] = [
    (
        lambda: Program(Predict("Say.", output="a_b")(Predict("Say.", output=("b_instruction", "a"))(QUESTION))),
        {"a.instruction": "a_instruction", "a_b.instruction": "a_b_instruction_"},
    ),
]


@pytest.mark.parametrize(("made", "expected"), NAMES)
def test_no_two_variables_are_alike(made: Callable[[], Program], expected: dict[str, str]) -> None:
    names = Variables.of(made())
    assert {name: names.parameters[name] for name in expected} == expected
    everything = [*names.values.values(), *names.parameters.values()]
    assert len(everything) == len(set(everything))
    assert names.values["a.b_instruction"] == "a_b_instruction"
