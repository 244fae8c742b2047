"""Judges of answers and steps: what they find, how they are calibrated, and what becomes of it in the objective."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TaskMaker
from support_optim import EXACT, open_program, rows, runtime_of

from engine import open_runtime
from engine.errors import ContentError
from engine.feedback.declared import declared_objective
from engine.feedback.judges import ByFunction, ByMetric, Line, Rubric, fit_line
from engine.feedback.objective import Objective
from engine.inference.scripted import Answer
from engine.program.declared import declared_program
from engine.records import Example, Judgement, Request, Score, Trace
from engine.tasks.metrics import METRICS, load_metric
from engine.tasks.schema import Loss
from engine.tasks.splits import load_splits
from engine.tasks.taskfile import load_task

ROW = Example("1", {"text": "the sky"}, ("blue",))


def sceptic(request: Request, prompt: str) -> Answer:
    """Says yes where `blue` is shown, is inclined to no by 2 nats, and writes `blue` itself."""
    if not isinstance(request, Score):
        return "blue"
    return [1.0 if "Colour: blue" in prompt or "Answer: blue" in prompt else 0.0, 2.0]


def judged(rubric: Rubric, text: str) -> Judgement:
    with runtime_of(sceptic) as runtime:
        return runtime.run(rubric.judgement("colour", ROW.inputs, {"colour": text}, ROW))


def test_a_rubric_is_a_likelihood_of_yes_and_names_the_questions_that_got_no() -> None:
    found = judged(Rubric(("Is it right?",)), "blue")
    assert math.isclose(found.value, 1 / (1 + math.exp(1)))
    assert found.said == 'The answer to "Is it right?" is no.'


def test_what_the_model_says_of_nothing_is_taken_off() -> None:
    with runtime_of(sceptic) as runtime:
        rubric = runtime.run(Rubric(("Is it right?",)).calibrated_on_nothing(("text",), "colour"))
    assert rubric.lines == (Line(1.0, 2.0),)
    assert math.isclose(judged(rubric, "blue").value, 1 / (1 + math.exp(-1)))
    assert judged(rubric, "blue").said == ""
    assert judged(rubric, "red").value == 0.5


def test_a_rubric_calibrated_on_answers_tells_right_from_wrong() -> None:
    examples = [Example(str(n), {"text": f"thing {n}"}, ("blue" if n % 2 else "red",)) for n in range(20)]

    def knowing(request: Request, prompt: str) -> Answer:
        number = int(prompt.split("thing ")[1].split()[0])
        return [0.5 if ("blue" in prompt) == bool(number % 2) else 0.0, 3.0]

    with runtime_of(knowing) as runtime:
        rubric = runtime.run(Rubric(("Right?",)).calibrated_on_answers(examples, "answer"))
        right = runtime.run(rubric.judgement("", {"text": "thing 7"}, {"answer": "blue"}, ROW))
        wrong = runtime.run(rubric.judgement("", {"text": "thing 7"}, {"answer": "red"}, ROW))
    assert wrong.value < 0.5 < right.value


def test_a_fitted_line_agrees_with_the_one_that_was_planted() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 3, 4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(0.7 * odds - 1.2)))
    line = fit_line(odds.tolist(), right.tolist())
    assert math.isclose(line.slope, 0.7, abs_tol=0.1)
    assert math.isclose(line.offset, -1.2, abs_tol=0.15)
    assert fit_line([None, None], [True, False]) == Line()
    assert math.isfinite(fit_line([-9.0, 9.0], [False, True]).slope)


def test_a_metric_judges_a_step_and_a_function_says_why() -> None:
    shown = {"text": "the sky"}, {"passages": "It is blue."}

    def short(inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example) -> tuple[float, str]:
        return 0.25, f"{len(outputs['passages'])} characters"

    with runtime_of(sceptic) as runtime:
        held = runtime.run(ByMetric(METRICS["contains"]).judgement("passages", *shown, ROW))
        counted = runtime.run(ByFunction(short, "short").judgement("passages", *shown, ROW))
    assert held == Judgement("passages", 1.0)
    assert counted == Judgement("passages", 0.25, "11 characters")


def test_the_value_of_an_execution_is_the_weighted_sum_of_what_is_known_of_it() -> None:
    objective = Objective(EXACT.metric, Loss(metric=1, judge=0.5, steps=2, tokens=0.1, seconds=0))
    trace = _ran(objective)[0]
    trace = Trace(
        trace.program, trace.example, trace.steps, trace.prediction, 1.0,
        (Judgement("", 0.5), Judgement("hint", 0.25), Judgement("colour", 0.75)),
    )  # fmt: skip
    assert trace.tokens > 0
    assert math.isclose(objective.value(trace), 1 + 0.25 + 1.0 - 0.1 * trace.tokens / 1000)
    assert objective.most == 3.5


def test_with_the_weights_at_their_defaults_the_value_is_the_score() -> None:
    traces = _ran(EXACT)
    assert EXACT.values(traces) == [trace.score for trace in traces]


def test_every_judged_step_gets_a_judgement_also_one_that_was_never_reached() -> None:
    def failing(request: Request, prompt: str) -> Answer:
        return [0.0] if isinstance(request, Score) else "word " * 9000

    objective = Objective(EXACT.metric, Loss(steps=1), None, {"hint": ByMetric(EXACT.metric), "colour": Rubric(("?",))})
    with runtime_of(failing) as runtime:
        (trace,) = runtime.run(objective.run(open_program(), rows(1)))
    assert [one.node for one in trace.judgements] == ["hint", "colour"]
    assert trace.judgements[1] == Judgement("colour", 0.0, "The step gave nothing.")


def test_judgements_are_kept_beside_their_traces() -> None:
    objective = Objective(EXACT.metric, Loss(steps=1), None, {"hint": ByMetric(METRICS["contains"])})
    with runtime_of(sceptic) as runtime:
        runtime.run(objective.run(open_program(), rows(2)), run="here")
        kept = [runtime.store.remarks(row.id) for row in runtime.store.traces()]
    assert [[(one.node, one.kind, one.value) for one in remarks] for remarks in kept] == [
        [("hint", "judge", 0.0)],
        [("hint", "judge", 1.0)],
    ]


def _ran(objective: Objective) -> list[Trace]:
    with runtime_of(sceptic) as runtime:
        return runtime.run(objective.run(open_program(), rows(3)))


# ── in a task file ───────────────────────────────────────────────────────────────────────────


def _declared(make_task: TaskMaker, **optimize: Any) -> Objective:
    task = load_task(make_task(optimize=optimize))
    program = declared_program(task, load_splits(task))
    return declared_objective(task, program, load_metric(task))


@pytest.mark.parametrize(
    ("optimize", "said"),
    [
        ({"loss": {"judge": 1}}, "judge weighs something, but there is none"),
        ({"loss": {"metric": 0}}, "nothing to raise: give metric, judge or steps a weight"),
        ({"loss": {"metric": -1}}, "loss.metric"),
        ({"loss": {"speed": 1}}, "unknown key 'optimize.loss.speed'"),
        ({"judge": {}}, "a judge is one of ask, metric and python; found none of them"),
        ({"judge": {"ask": "Good?", "metric": "contains"}}, "found ask and metric"),
        ({"judge": {"metric": "contain"}}, "did you mean 'contains'?"),
        ({"steps": {"nowhere": {"ask": "Good?"}}}, "no node 'nowhere'"),
        ({"steps": {"kind": {"ask": "Good?", "calibrate": "answers"}}}, "calibrate: answers is for the questions"),
    ],
)
def test_mistakes_are_named_by_their_line(make_task: TaskMaker, optimize: dict[str, Any], said: str) -> None:
    with pytest.raises(ContentError, match=r"task\.yaml:\d+") as caught:
        _declared(make_task, **optimize)
    assert said in str(caught.value)


def test_a_users_judge_that_fails_or_is_out_of_bounds_is_one_line(make_task: TaskMaker, tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text("def far(i, o, e): return 7\ndef broken(i, o, e): return o['nothing']\n")
    for name, said in (("far", "gave 7.0 on"), ("broken", "failed on")):
        objective = _declared(make_task, judge={"python": f"judges.py:{name}"}, loss={"judge": 1})
        with runtime_of(sceptic) as runtime, pytest.raises(ContentError, match=f"judges.py:{name} {said}"):
            runtime.run(objective.run(open_program(), rows(1)))


@pytest.mark.model
def test_a_small_model_judges_under_a_rubric() -> None:
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        rubric = Rubric(("Does the answer name a colour?", "Is the answer short?"))
        rubric = runtime.run(rubric.calibrated_on_nothing(("question",), "answer"))
        shown = {"question": "What is the colour of the sky?"}
        found = [runtime.run(rubric.judgement("", shown, {"answer": text}, ROW)) for text in ("blue", "It is a day.")]
    assert all(0 < one.value < 1 for one in found)
    assert len(rubric.lines) == 2
