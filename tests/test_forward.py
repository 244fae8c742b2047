"""The forward pass and evaluation: what a program answers, what its traces hold, what a failure does."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.errors import ContentError
from engine.evaluation import Evaluation, evaluate, prediction_row
from engine.forward import bind, example_from, forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, Script, ScriptedBackend
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Example, Generate, Prediction, Request, Score, Trace
from engine.store.store import Store
from engine.tasks.metrics import METRICS, Metric

COLOURS = ("blue", "red")
Maker = Callable[..., Runtime]


def two_nodes() -> Program:
    """A note on the text, then a colour chosen from text and note."""
    text = Input("text")
    note = Predict("Note what matters.", output="note", max_tokens=8)(text)
    return Program(Predict("Name the colour.", output="colour", choices=COLOURS)(text, note))


def script(request: Request, prompt: str) -> Answer:
    """Writes down the last word; likes the colour that is in the prompt."""
    if isinstance(request, Generate):
        return f"It ends in {prompt.split('Text: ')[1].split()[-2]}"
    assert isinstance(request, Score)
    return [0.0 if word in prompt.split("Text:")[-1] else -2.0 for word in request.continuations]


def examples(*texts: str) -> list[Example]:
    return [Example(f"{n}", {"text": text}, (text.split()[-1],)) for n, text in enumerate(texts)]


def traces_of(program: Program, found: list[Example], by: Script = script, context: int = 8192) -> list[Trace]:
    with Runtime({"task": ScriptedBackend(by, context=context)}, Store(":memory:")) as runtime:
        return runtime.run(forward(program, found, METRICS["exact_match"]))


def test_a_node_reads_what_the_one_before_it_wrote() -> None:
    (trace,) = traces_of(two_nodes(), examples("the sky is blue"))
    note, colour = trace.steps
    assert (note.node, note.inputs, note.outputs) == (
        "note",
        {"text": "the sky is blue"},
        {"note": "It ends in blue"},
    )
    assert colour.inputs == {"text": "the sky is blue", "note": "It ends in blue"}
    assert trace.prediction.text == "blue"
    assert trace.prediction.outputs == {"note.note": "It ends in blue", "colour.colour": "blue"}


@pytest.mark.parametrize("bias", [(), (0.0, 3.0)])
def test_asking_for_the_winner_alone_names_the_one_that_all_scores_name(bias: tuple[float, ...]) -> None:
    text = Input("text")
    layer = Predict("Name the colour.", output="colour", choices=COLOURS, bias=bias)
    found = examples("the sky is blue", "a rose is red", "neither here nor there")
    every = traces_of(Program(layer(text)), found)
    winner = traces_of(Program(replace(layer, scores="winner")(text)), found)
    assert [trace.prediction.text for trace in winner] == [trace.prediction.text for trace in every]
    assert [trace.prediction.probabilities for trace in winner] == [None] * 3
    assert winner[0].steps[0].loglikelihoods is None


def test_a_trace_holds_all_that_is_needed_to_learn_from_it() -> None:
    program = two_nodes()
    (trace,) = traces_of(program, examples("the sky is blue"))
    note, colour = trace.steps
    assert trace.program == program.fingerprint
    assert trace.example == examples("the sky is blue")[0]
    assert trace.score == 1.0
    assert (note.loglikelihoods, note.probabilities, note.error) == (None, None, None)
    assert colour.loglikelihoods == (0.0, -2.0)
    share = 1 / (1 + math.exp(-2))
    assert colour.probabilities == pytest.approx({"blue": share, "red": 1 - share})
    assert trace.prediction.probabilities == colour.probabilities
    assert len(note.calls) == len(colour.calls) == 1
    assert note.calls != colour.calls


def test_the_calls_of_a_trace_are_in_the_store() -> None:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        (trace,) = runtime.run(forward(two_nodes(), examples("the sky is blue"), METRICS["exact_match"]))
        calls = [runtime.store.call(key) for step in trace.steps for key in step.calls]
    assert [call.kind for call in calls if call] == ["generate", "score"]
    assert "the sky is blue" in (calls[0].prompt if calls[0] else "")


def test_a_bias_changes_the_choice_but_not_the_likelihoods() -> None:
    program = two_nodes().replace({"colour.bias": (-5.0, 5.0)})
    (trace,) = traces_of(program, examples("the sky is blue"))
    assert trace.prediction.text == "red"
    assert trace.score == 0.0
    assert trace.steps[1].loglikelihoods == (0.0, -2.0)


def test_traces_come_in_the_order_of_the_examples_and_share_calls() -> None:
    found = examples("a blue one", "a red one", "a blue one", "one that is blue")
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        traces = runtime.run(forward(two_nodes(), found, METRICS["exact_match"]))
        assert runtime.usage.calls == 8
        assert runtime.usage.cached_calls == 2
    assert [trace.example.id for trace in traces] == ["0", "1", "2", "3"]


def test_a_failing_node_ends_its_execution_alone() -> None:
    long = "word " * 40 + "blue"
    failed, fine = traces_of(two_nodes(), examples(long, "the sky is blue"), context=30)
    assert [step.node for step in failed.steps] == ["note"]
    assert failed.steps[0].error is not None
    assert failed.prediction == Prediction("", error=f"note: {failed.steps[0].error}")
    assert failed.score == 0.0
    assert (fine.prediction.error, fine.score) == (None, 1.0)


def test_a_failure_behind_the_first_node_keeps_the_steps_before_it() -> None:
    def wordy(request: Request, prompt: str) -> Answer:
        return "word " * 40 if isinstance(request, Generate) else script(request, prompt)

    (trace,) = traces_of(two_nodes(), examples("the sky is blue"), by=wordy, context=40)
    assert [(step.node, step.error is None) for step in trace.steps] == [("note", True), ("colour", False)]
    assert (trace.prediction.error or "").startswith("colour: the prompt needs")


def test_a_reply_without_a_field_is_a_failed_execution_not_an_exception() -> None:
    program = Program(Predict("Think, then answer.", output=("reason", "answer"))(Input("text")))
    (trace,) = traces_of(program, examples("the sky is blue"), by=lambda request, prompt: "no fields here")
    assert "unparsed: the reply lacks a field of reason, answer" in (trace.prediction.error or "")
    assert trace.score == 0.0


def test_every_trace_is_stored_with_its_run() -> None:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        runtime.run(forward(two_nodes(), examples("a blue", "a red"), METRICS["exact_match"]), run="mine")
        rows = runtime.store._db.execute("SELECT run, example, score FROM traces ORDER BY example").fetchall()
    assert rows == [("mine", "0", 1.0), ("mine", "1", 1.0)]


def test_without_a_metric_the_score_is_not_a_number() -> None:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        (trace,) = runtime.run(forward(two_nodes(), [example_from({"text": "the sky is blue"})]))
    assert math.isnan(trace.score)
    assert trace.prediction.text == "blue"


# ── bind ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_bound_program_is_called_like_a_function(scripted_runtime: Maker) -> None:
    runtime = scripted_runtime(script)
    program = bind(two_nodes(), runtime)
    assert program(text="the sky is blue").text == "blue"
    assert program(text="the rose is red").text == "red"
    assert program == two_nodes(), "a model is no part of a program"


def test_a_changed_program_stays_bound(scripted_runtime: Maker) -> None:
    changed = bind(two_nodes(), scripted_runtime(script)).replace({"colour.bias": (-5.0, 5.0)})
    assert changed(text="the sky is blue").text == "red"


def test_a_call_with_the_wrong_inputs_says_which(scripted_runtime: Maker) -> None:
    program = bind(two_nodes(), scripted_runtime(script))
    with pytest.raises(ContentError, match="did you mean 'text'"):
        program(texts="x")
    with pytest.raises(ContentError, match="input 'text' is missing"):
        program()


def test_a_program_without_a_model_cannot_be_called() -> None:
    with pytest.raises(ContentError, match=r"engine\.bind"):
        two_nodes()(text="x")


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


def evaluated(found: list[Example], metric: Metric = METRICS["exact_match"], context: int = 8192) -> Evaluation:
    with Runtime({"task": ScriptedBackend(script, context=context)}, Store(":memory:")) as runtime:
        return evaluate(two_nodes(), found, metric, runtime)


def test_an_evaluation_counts_what_it_found_and_what_it_cost() -> None:
    found = examples("it is blue", "it is red", "the sky is blue")
    wrong = [replace(found[2], accepted=("red",)), Example("9", {"text": "grass"}, ("green",))]
    result = evaluated(found[:2] + wrong)
    assert (result.n, result.score, result.failed, result.outside) == (4, 0.5, 0, 1)
    assert result.interval[0] < 0.5 < result.interval[1]
    assert (result.usage.calls, result.usage.cached_calls) == (8, 0)
    assert result.usage.computed_tokens == result.usage.prompt_tokens > 0
    assert result.confusion() == {"blue": {"blue": 1}, "red": {"red": 1, "blue": 1}, "green": {"blue": 1}}


def test_a_failed_execution_counts_as_wrong_and_is_named_in_the_confusion() -> None:
    result = evaluated(examples("it is blue", "word " * 60 + "red"), context=40)
    assert (result.failed, result.score) == (1, 0.5)
    assert result.confusion() == {"blue": {"blue": 1}, "red": {"(failed)": 1}}


def test_an_evaluation_where_nothing_can_be_answered_is_an_error() -> None:
    with pytest.raises(ContentError, match=r"not one of 2 examples .* holds 5"):
        evaluated(examples("it is blue", "it is red"), context=5)


def test_macro_f1_has_an_interval_of_its_own_around_the_figure() -> None:
    found = examples(*["it is blue"] * 12, *["it is red"] * 12) + [Example("x", {"text": "it is red"}, ("blue",))] * 6
    result = evaluated(found, METRICS["macro_f1"])
    precision_red, recall_blue = 12 / 18, 12 / 18
    expected = (2 * recall_blue / (1 + recall_blue) + 2 * precision_red / (precision_red + 1)) / 2
    assert result.score == pytest.approx(expected)
    assert 0 < result.interval[0] < result.score < result.interval[1] < 1


def test_a_prediction_row_says_everything_about_one_example() -> None:
    (trace,) = traces_of(two_nodes(), examples("the sky is blue"))
    row = prediction_row(trace)
    assert row["id"] == "0"
    assert row["inputs"] == {"text": "the sky is blue"}
    assert row["accepted"] == ["blue"]
    assert row["prediction"] == "blue"
    assert row["outputs"] == {"note.note": "It ends in blue", "colour.colour": "blue"}
    assert set(row["probabilities"]) == set(COLOURS)
    assert (row["score"], row["error"]) == (1.0, None)
