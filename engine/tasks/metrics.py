"""Metrics: how right one prediction is, in [0, 1], and how a list of them becomes one figure.

exact_match        1 where the answer is an accepted one, ignoring case and surrounding or repeated white space
macro_f1           exact match per example; the figure is the mean F1 over the labels (Sokolova & Lapalme 2009)
contains           1 where an accepted answer stands in the text
numeric            1 where the last number of the text is an accepted number
token_f1           overlap of words, best accepted answer (SQuAD; Rajpurkar 2016, with its normalization)
json_fields        share of an accepted JSON object's fields that the text's object repeats (1 is 1.0, true is not 1)
tool_call          1 where the text is a call of a tool whose name and arguments are all accepted (see tool_calls.py)
choice_likelihood  the probability that the program gave to the accepted choices
"""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import ContentError
from engine.records import Example, Prediction
from engine.statistics import mean
from engine.tasks.answers import normalized, same_value
from engine.tasks.schema import Task, UserMetric
from engine.tasks.taskfile import nearest
from engine.tasks.tool_calls import read_calls, same_calls
from engine.tasks.usercode import blamed, load_function

PerExample = Callable[[Prediction, Example], float]

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric. A failed prediction scores 0 without `per_example` being asked."""

    name: str
    per_example: PerExample

    def score(self, prediction: Prediction, example: Example) -> float:
        """The score of one prediction, in [0, 1].

        Raises:
            ContentError: the example has no accepted answer, or a metric of the user's own failed.
        """
        if prediction.error is not None:
            return 0.0
        return self.per_example(prediction, example)

    def figure(self, scores: Sequence[float], predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
        """One figure for a split: the mean, except for macro_f1."""
        if self.name == "macro_f1":
            return _macro_f1([p.text for p in predictions], [e.target or "" for e in examples])
        return mean(scores)


def load_metric(task: Task) -> Metric:
    """The metric a task names.

    Raises:
        ContentError: no such metric, or a user's file without the function.
        UsageError: a user's file is absent.
    """
    named = task.file.metric
    if isinstance(named, UserMetric):
        return _user_metric(named, task)
    if named not in METRICS:
        raise ContentError(f"{task.where(('metric',))}: unknown metric {named!r}: {nearest(named, sorted(METRICS))}")
    return METRICS[named]


def _accepted(example: Example) -> tuple[str, ...]:
    if not example.accepted:
        raise ContentError(f"{example.origin or example.id}: no accepted answer to score against")
    return example.accepted


def _exact_match(prediction: Prediction, example: Example) -> float:
    return float(normalized(prediction.text) in {normalized(answer) for answer in _accepted(example)})


def _contains(prediction: Prediction, example: Example) -> float:
    text = normalized(prediction.text)
    return float(any(normalized(answer) in text for answer in _accepted(example)))


def _numeric(prediction: Prediction, example: Example) -> float:
    found = _last_number(prediction.text)
    wanted = [_last_number(answer) for answer in _accepted(example)]
    return float(
        found is not None and any(w is not None and math.isclose(found, w, rel_tol=1e-9, abs_tol=1e-12) for w in wanted)
    )


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _token_f1(prediction: Prediction, example: Example) -> float:
    return max(_overlap(_words(prediction.text), _words(answer)) for answer in _accepted(example))


def _words(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def _overlap(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))


def _json_fields(prediction: Prediction, example: Example) -> float:
    found = _json_object(prediction.text)
    return max(_shared_fields(found, _json_object(answer)) for answer in _accepted(example))


def _json_object(text: str) -> dict[str, object] | None:
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _shared_fields(found: dict[str, object] | None, wanted: dict[str, object] | None) -> float:
    """Share of all fields, of either side, that both hold alike: an extra field costs as much as a missing one."""
    if found is None or wanted is None:
        return 0.0
    fields = found.keys() | wanted.keys()
    return (
        sum(1 for name in fields if name in found and name in wanted and same_value(found[name], wanted[name]))
        / len(fields)
        if fields
        else 1.0
    )


def _tool_call(prediction: Prediction, example: Example) -> float:
    found = read_calls(prediction.text)
    return float(any(same_calls(found, read_calls(answer)) for answer in _accepted(example)))


def _choice_likelihood(prediction: Prediction, example: Example) -> float:
    if prediction.probabilities is None:
        raise ContentError("metric choice_likelihood needs a program whose output has closed choices")
    return min(1.0, math.fsum(prediction.probabilities.get(answer, 0.0) for answer in _accepted(example)))


def _macro_f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    pairs = [(normalized(f), normalized(w)) for f, w in zip(found, wanted, strict=True)]
    scores = []
    for label in sorted({w for _, w in pairs}):
        right = sum(f == w == label for f, w in pairs)
        claimed, present = sum(f == label for f, _ in pairs), sum(w == label for _, w in pairs)
        scores.append(2 * right / (claimed + present))
    return mean(scores)


def _user_metric(named: UserMetric, task: Task) -> Metric:
    function = load_function(named.python, task.folder, task.where(("metric", "python")))

    def checked(prediction: Prediction, example: Example) -> float:
        with blamed(f"{named.python} failed on {example.id}"):
            value = float(function(prediction, example))
        if not 0.0 <= value <= 1.0:
            raise ContentError(f"{named.python} gave {value} on {example.id}; a score lies between 0 and 1")
        return value

    return Metric(named.python, checked)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("exact_match", _exact_match),
        Metric("macro_f1", _exact_match),
        Metric("contains", _contains),
        Metric("numeric", _numeric),
        Metric("token_f1", _token_f1),
        Metric("json_fields", _json_fields),
        Metric("tool_call", _tool_call),
        Metric("choice_likelihood", _choice_likelihood),
    )
}
