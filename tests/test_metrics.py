"""Metrics against cases worked by hand, and a metric of the user's own in all the ways it can fail."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError, UsageError
from engine.records import Example, Prediction
from engine.tasks.answers import normalized, same_value
from engine.tasks.metrics import METRICS, Metric, load_metric
from engine.tasks.taskfile import load_task

TaskMaker = Callable[..., Path]


def score(metric: str, text: str, *accepted: str) -> float:
    return METRICS[metric].score(Prediction(text), Example("e", {}, accepted, "rows.jsonl:1"))


@pytest.mark.parametrize(
    ("metric", "text", "accepted", "expected"),
    [
        ("exact_match", "  The\n Cat ", ("the cat",), 1),
        ("exact_match", "cat", ("the cat",), 0),
        ("exact_match", "b", ("a", "b"), 1),
        ("exact_match", "STRASSE", ("straße",), 1),
        ("contains", "It is the CAT, surely.", ("the cat",), 1),
        ("contains", "It is the dog.", ("the cat",), 0),
        ("contains", "dog", ("the cat", "dog"), 1),
        ("numeric", "3 + 4 = 7.", ("7",), 1),
        ("numeric", "7 apples, 3 pears", ("7",), 0),
        ("numeric", "about 1,234.50", ("1234.5",), 1),
        ("numeric", "-.5", ("-0.5",), 1),
        ("numeric", "1e3", ("1000",), 1),
        ("numeric", "1000001", ("1000000",), 0),
        ("numeric", "none at all", ("7",), 0),
        ("numeric", "7", ("seven",), 0),
        ("numeric", "7", ("seven", "7"), 1),
        ("token_f1", "The cat sat.", ("a cat sat",), 1),
        ("token_f1", "the big black cat", ("cat",), 0.5),
        ("token_f1", "cat cat dog", ("cat dog dog",), 2 / 3),
        ("token_f1", "bird", ("cat", "a bird"), 1),
        ("token_f1", "", ("the",), 1),
        ("token_f1", "", ("cat",), 0),
        ("json_fields", 'Sure: {"a": 1, "b": "x"} as asked', ('{"a": 1, "b": "x"}',), 1),
        ("json_fields", '{"a": 1, "b": "y"}', ('{"a": 1, "b": "x"}',), 0.5),
        ("json_fields", '{"a": 1, "c": 0}', ('{"a": 1, "b": "x"}',), 1 / 3),
        ("json_fields", '{"a": 1, "b": 2, "c": 3}', ('{"a": 1}',), 1 / 3),
        ("json_fields", '{"a": {"b": [1, 2]}}', ('{"a": {"b": [1, 2]}}',), 1),
        ("json_fields", '{"a": true, "b": 1}', ('{"a": 1, "b": true}',), 0),
        ("json_fields", '{"a": 1, "b": 2.50}', ('{"a": 1.0, "b": 2.5}',), 1),
        ("json_fields", '{"a": false, "b": null}', ('{"a": 0, "b": null}',), 0.5),
        ("json_fields", '{"a": [1, {"b": true}]}', ('{"a": [1, {"b": 1}]}',), 0),
        ("json_fields", '{"a": [1], "b": "1", "c": {}}', ('{"a": [1, 2], "b": 1, "c": {"d": 0}}',), 0),
        ("json_fields", '{"a": ' + "[" * 900 + "]" * 900 + "}", ('{"a": ' + "[" * 900 + "]" * 900 + "}",), 1),
        ("json_fields", "{}", ("{}",), 1),
        ("json_fields", "no object", ('{"a": 1}',), 0),
        ("json_fields", "} {", ('{"a": 1}',), 0),
        ("json_fields", '{"a":' * 100_000, ('{"a": 1}',), 0),
        ("json_fields", '{"a": 2}', ('{"a": 1}', '{"a": 2}'), 1),
        ("tool_call", '{"name": "f", "arguments": {"a": 1, "b": "X  y"}}', ('{"f": {"b": "x Y", "a": 1.0}}',), 1),
        ("tool_call", '{"name": "f", "arguments": "{\\"a\\": 1}"}', ('{"name": "f", "arguments": {"a": 1}}',), 1),
        ("tool_call", 'Sure [1]: [{"f": {"a": true}}].', ('[{"f": {"a": true}}]',), 1),
        ("tool_call", '{"f": {"a": true}}', ('[{"f": {"a": 1}}]',), 0),
        ("tool_call", '{"F": {"a": 1}}', ('{"f": {"a": 1}}',), 0),
        ("tool_call", '{"f": {"a": 1, "b": 2}}', ('{"f": {"a": 1}}',), 0),
        ("tool_call", '{"f": {"a": 1}}', ('{"f": {"a": 1, "b": 2}}',), 0),
        ("tool_call", '{"f": {"a": 2}}', ('{"f": {"a": 1}}', '{"f": {"a": 2}}'), 1),
        ("tool_call", '{"f": {"a": "1"}}', ('{"f": {"a": 1}}',), 0),
        ("tool_call", '{"f": {"a": [1, {"b": "C"}]}}', ('{"f": {"a": [1.0, {"b": " c"}]}}',), 1),
        ("tool_call", '{"f": {"a": [2, 1]}}', ('{"f": {"a": [1, 2]}}',), 0),
        ("tool_call", '{"f": {}}', ('{"name": "f", "arguments": {}}',), 1),
        ("tool_call", '{"f": {}}', ('{"name": "g", "arguments": {}}',), 0),
        ("tool_call", '[{"f": {}}, {"g": {}}]', ('[{"f": {}}, {"g": {}}]',), 1),
        ("tool_call", '[{"g": {}}, {"f": {}}]', ('[{"f": {}}, {"g": {}}]',), 0),
        ("tool_call", '{"f": {}}', ('[{"f": {}}, {"f": {}}]',), 0),
        ("tool_call", "[]", ("[]",), 0),
        ("tool_call", '{"f": 1}', ('{"f": 1}',), 0),
        ("tool_call", "call f with a = 1", ('{"f": {"a": 1}}',), 0),
        ("tool_call", '{"f": {"a":' * 100_000, ('{"f": {"a": 1}}',), 0),
        ("tool_call", '{"f": {"a": ' + "[" * 900 + "]" * 900 + "}}", ('{"f": {"a": 1}}',), 0),
        # what an accepted answer lists for each argument, "" where it may be left out
        ("tool_call", '{"f": {"a": "oslo"}}', ('{"f": {"a": ["Oslo", "Oslo, Norway"], "b": ["C", ""]}}',), 1),
        (
            "tool_call",
            '{"f": {"a": "Oslo, Norway", "b": "c"}}',
            ('{"f": {"a": ["Oslo", "Oslo, Norway"], "b": ["C", ""]}}',),
            1,
        ),
        ("tool_call", '{"f": {"a": "Oslo", "b": "F"}}', ('{"f": {"a": ["Oslo"], "b": ["C", ""]}}',), 0),
        ("tool_call", '{"f": {"b": "C"}}', ('{"f": {"a": ["Oslo"], "b": ["C", ""]}}',), 0),
        ("tool_call", '{"f": {"a": "Oslo", "c": 1}}', ('{"f": {"a": ["Oslo"]}}',), 0),
        ("tool_call", '{"f": {"a": [1, 2.0]}}', ('{"f": {"a": [[1, 2], [3]]}}',), 1),
        ("tool_call", '{"f": {"a": [1, 2]}}', ('{"f": {"a": [1, 2]}}',), 1),
        ("tool_call", '{"f": {"a": {"w": 20}}}', ('{"f": {"a": [{"w": [20], "h": [12, ""]}]}}',), 1),
        ("tool_call", '{"f": {"a": {"w": 21}}}', ('{"f": {"a": [{"w": [20], "h": [12, ""]}]}}',), 0),
        ("tool_call", '{"f": {"a": [{"w": 20}]}}', ('{"f": {"a": [[{"w": [20, 21]}]]}}',), 1),
        ("tool_call", '{"f": {}}', ('{"f": {"a": [""]}}',), 1),
        ("tool_call", '{"name": "f", "arguments": {"a": 1}}', ('{"name": "f", "arguments": {"a": [1]}}',), 0),
    ],
)
def test_a_case_worked_by_hand(metric: str, text: str, accepted: tuple[str, ...], expected: float) -> None:
    assert score(metric, text, *accepted) == pytest.approx(expected)


def test_choice_likelihood_adds_up_the_accepted_choices() -> None:
    prediction = Prediction("b", probabilities={"a": 0.2, "b": 0.5, "c": 0.3})
    metric = METRICS["choice_likelihood"]
    assert metric.score(prediction, Example("e", {}, ("a",))) == 0.2
    assert metric.score(prediction, Example("e", {}, ("a", "c"))) == pytest.approx(0.5)
    assert metric.score(prediction, Example("e", {}, ("elsewhere",))) == 0
    assert metric.score(Prediction("a", probabilities={"a": 0.7, "b": 0.3 + 1e-12}), Example("e", {}, ("a", "b"))) == 1


def test_choice_likelihood_without_choices_says_what_it_needs() -> None:
    with pytest.raises(ContentError, match="closed choices"):
        score("choice_likelihood", "text", "text")


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_failed_prediction_scores_nothing(metric: str) -> None:
    failed = Prediction("", error="the model said no")
    assert METRICS[metric].score(failed, Example("e", {}, ("",))) == 0


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"choice_likelihood"}))
def test_an_example_without_an_answer_is_named_by_its_line(metric: str) -> None:
    with pytest.raises(ContentError, match=r"^rows\.jsonl:1: no accepted answer to score against$"):
        score(metric, "text")


def test_macro_f1_agrees_with_a_hand_calculation() -> None:
    # a: 2 right of 2 claimed and 3 present, 4/5; b: 1 right of 2 and 2, 1/2; c: 1 right of 2 and 1, 2/3
    assert figure(wanted="aaabbc", found="aabbcc") == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def figure(wanted: str, found: str) -> float:
    """macro_f1 of one-letter labels."""
    examples = [Example(str(n), {}, (label,)) for n, label in enumerate(wanted)]
    predictions = [Prediction(label) for label in found]
    scores = [METRICS["macro_f1"].score(p, e) for p, e in zip(predictions, examples, strict=True)]
    return METRICS["macro_f1"].figure(scores, predictions, examples)


def test_macro_f1_weighs_rare_labels_like_frequent_ones_and_ignores_labels_nobody_wants() -> None:
    assert figure("aaaaaaaaab", "aaaaaaaaaa") == pytest.approx((18 / 19 + 0) / 2)
    assert figure("ab", "zz") == 0
    assert figure("aabb", "AABB") == 1


def test_the_figure_of_any_other_metric_is_the_mean() -> None:
    predictions, examples = [Prediction("x")] * 4, [Example("e", {}, ("x",))] * 4
    assert METRICS["exact_match"].figure([1, 0, 0.5, 0.5], predictions, examples) == 0.5


WORDS = st.lists(st.sampled_from(["cat", "Dog.", "the", "a", "bird", "cat,", "é", "-"]), max_size=6).map(" ".join)


@given(WORDS, WORDS)
def test_token_f1_is_symmetric_in_range_and_full_for_itself(one: str, other: str) -> None:
    value = score("token_f1", one, other)
    assert value == score("token_f1", other, one)
    assert 0 <= value <= 1
    assert score("token_f1", one, one) == 1


JSON = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 1) | st.text(max_size=2), max_size=3
)


@given(JSON, JSON)
def test_json_fields_is_symmetric_and_full_only_for_equal_objects(one: object, other: object) -> None:
    value = score("json_fields", json.dumps(one), json.dumps(other))
    assert value == score("json_fields", json.dumps(other), json.dumps(one))
    assert (value == 1) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@given(JSON, JSON)
def test_a_tool_call_is_right_for_equal_arguments_alone_in_either_form(one: object, other: object) -> None:
    plain, short = json.dumps({"name": "f", "arguments": one}), json.dumps({"f": other})
    value = score("tool_call", plain, short)
    assert value == score("tool_call", short, plain)
    assert value == same_value(one, other, normalized)
    assert score("tool_call", plain, plain) == 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_text_metric_stays_in_range_on_any_text(text: str, answer: str) -> None:
    for name in sorted(set(METRICS) - {"choice_likelihood"}):
        assert 0 <= score(name, text, answer) <= 1


# ── a metric of the user's own ───────────────────────────────────────────────────────────────────


def user_metric(make_task: TaskMaker, source: str, reference: str = "metric.py:score") -> Metric:
    path = make_task(metric={"python": reference})
    (path.parent / "metric.py").write_text(source, encoding="utf-8")
    return load_metric(load_task(path))


def test_a_metric_of_the_users_own_scores_with_what_it_returns(make_task: TaskMaker) -> None:
    metric = user_metric(make_task, "def score(prediction, example):\n    return prediction.text == example.target\n")
    assert metric.name == "metric.py:score"
    assert metric.score(Prediction("a"), Example("e", {}, ("a",))) == 1
    assert metric.score(Prediction("b"), Example("e", {}, ("a",))) == 0
    assert metric.score(Prediction("a", error="failed"), Example("e", {}, ("a",))) == 0


def test_a_users_file_may_define_dataclasses_with_postponed_annotations(make_task: TaskMaker) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    weight: float\n"
        "def score(prediction, example):\n    return Rule(0.25).weight\n"
    )
    assert user_metric(make_task, source).score(Prediction("a"), Example("e", {}, ("a",))) == 0.25


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('label')", "metric.py:score failed on e7: KeyError: 'label'"),
        ("return None", "metric.py:score failed on e7: TypeError: "),
        ("return 'good'", "metric.py:score failed on e7: ValueError: "),
        ("return 1.5", "metric.py:score gave 1.5 on e7; a score lies between 0 and 1"),
        ("return -0.1", "metric.py:score gave -0.1 on e7; a score lies between 0 and 1"),
        ("return float('nan')", "metric.py:score gave nan on e7; a score lies between 0 and 1"),
    ],
)
def test_a_users_metric_that_goes_wrong_names_itself_and_the_example(
    make_task: TaskMaker, body: str, says: str
) -> None:
    metric = user_metric(make_task, f"def score(prediction, example):\n    {body}\n")
    with pytest.raises(ContentError) as caught:
        metric.score(Prediction("a"), Example("e7", {}, ("a",)))
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("source", "reference", "kind", "says"),
    [
        ("", "metric.py:score", ContentError, "metric.py has no function 'score'"),
        ("score = 3\n", "metric.py:score", ContentError, "metric.py has no function 'score'"),
        ("1 / 0\n", "metric.py:score", ContentError, "fails when it is read: ZeroDivisionError: division by zero"),
        ("def score(:\n", "metric.py:score", ContentError, "fails when it is read: SyntaxError: "),
        ("", "score", ContentError, "write it as file.py:function, not 'score'"),
        ("", "metric.py:", ContentError, "write it as file.py:function, not 'metric.py:'"),
        ("", "nowhere.py:score", UsageError, "nowhere.py: no such file"),
        ("", "task.yaml:score", ContentError, "is not a Python file"),
    ],
)
def test_a_users_metric_that_cannot_be_loaded_is_named_at_its_line(
    make_task: TaskMaker, source: str, reference: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind) as caught:
        user_metric(make_task, source, reference)
    text = str(caught.value)
    assert says in text
    path = make_task(metric={"python": reference})
    assert text.startswith(f"{path}:{load_task(path).lines[('metric', 'python')]}: ")


def test_an_unknown_metric_is_named_at_its_line_with_the_nearest_one(make_task: TaskMaker) -> None:
    task = load_task(make_task(metric="exact_mach"))
    with pytest.raises(ContentError) as caught:
        load_metric(task)
    line = task.lines[("metric",)]
    assert str(caught.value) == f"{task.path}:{line}: unknown metric 'exact_mach': did you mean 'exact_match'?"
