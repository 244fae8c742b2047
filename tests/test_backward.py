"""Backward against graphs worked by hand: who is asked about what, in which order, with which words."""

from pathlib import Path

from engine.feedback.backward import backward, loss_in_words
from engine.feedback.losses import cross_entropy, mean_loss
from engine.flows import Flow
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.records import Chat, Example, Feedback, Generate, Prediction, Request, Step, Trace
from engine.store.store import Store
from engine.tasks.metrics import METRICS


def chain() -> Program:
    question = Input("question")
    plan = Predict("Plan the work.", output="plan")(question)
    return Program(Predict("Solve it.", output="answer")(question, plan))


class Script:
    """Answers the program's own calls with fixed texts, and names what each critique was asked about."""

    def __init__(self) -> None:
        self.critiques: list[str] = []

    def __call__(self, request: Request, prompt: str) -> str:
        assert isinstance(request, Generate)
        if request.role == "task":
            return "wrong" if "Solve it." in prompt else "my plan"
        assert isinstance(request.prompt, Chat)
        asked = request.prompt.messages[-1].text
        self.critiques.append(asked)
        target = asked.split("say how the ")[1].split(" should change")[0]
        where = "Solve it." if "Instruction: Solve it." in asked else "Plan the work."
        return f"Change the {target} of {where}"


def run(flow: Flow[list[Feedback]], script: Script) -> list[Feedback]:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        return runtime.run(flow)


def failed_traces(program: Program, script: Script, count: int = 1) -> list[Trace]:
    examples = [Example(str(number), {"question": f"Q{number}"}, ("right",)) for number in range(count)]
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        return runtime.run(forward(program, examples, METRICS["exact_match"]))


def test_a_chain_passes_the_gradient_of_the_answer_on_to_the_plan() -> None:
    program, script = chain(), Script()
    feedback = run(backward(program, failed_traces(program, script)), script)
    assert [item.parameter for item in feedback] == ["plan.instruction", "answer.instruction"]
    assert feedback[1].text == "- Change the instruction of Solve it."
    assert feedback[0].text == "- Change the instruction of Plan the work."
    about_answer, about_plan_text, about_plan = script.critiques
    assert 'Mistake: The answer was "wrong", but "right" is right.' in about_answer
    assert "say how the plan should change" in about_plan_text
    assert "Mistake: Change the plan of Solve it." in about_plan, "the plan's gradient is what its consumer said of it"


def test_fan_out_gathers_what_both_consumers_said() -> None:
    question = Input("question")
    plan = Predict("Plan the work.", output="plan")(question)
    draft = Predict("Draft it.", output="draft")(plan)
    program = Program(Predict("Solve it.", output="answer")(plan, draft))
    script = Script()
    run(backward(program, failed_traces(program, script)), script)
    about_plan = next(text for text in script.critiques if text.startswith("Instruction: Plan the work."))
    assert about_plan.count("Mistake:") == 2


def test_what_was_found_is_kept_beside_each_trace_and_once_where_it_is_done_again(tmp_path: Path) -> None:
    program, example = chain(), Example("1", {"question": "Q"}, ("right",))
    kept = []
    for _ in range(2):
        with Runtime({"task": ScriptedBackend(Script())}, Store(tmp_path / "store.db")) as runtime:
            traces = runtime.run(forward(program, [example], METRICS["exact_match"]), run="r")
            runtime.run(backward(program, traces), run="r")
            (row,) = runtime.store.traces()
            kept.append(runtime.store.remarks(row.id))
    assert runtime.usage.cached_calls == runtime.usage.calls == 5, "the second time is a replay"
    assert kept[0] == kept[1]
    assert all((remark.program, remark.example) == (program.fingerprint, example) for remark in kept[0])
    assert [(remark.kind, remark.node, remark.text, remark.value) for remark in kept[0]] == [
        ("failure", "answer", "wrong answer: other", None),
        ("loss", "answer.answer", 'The answer was "wrong", but "right" is right.', 1.0),
        ("gradient", "answer.instruction", "Change the instruction of Solve it.", None),
        ("gradient", "plan.plan", "Change the plan of Solve it.", None),
        ("gradient", "plan.instruction", "Change the instruction of Plan the work.", None),
    ]


def test_right_executions_give_no_feedback_and_cost_no_call() -> None:
    program, script = chain(), Script()
    trace = failed_traces(program, script)[0]
    right = Trace(trace.program, trace.example, trace.steps, trace.prediction, 1.0)
    assert run(backward(program, [right]), script) == []
    assert script.critiques == []


def test_critiques_of_many_traces_become_one_feedback_in_order_without_repeats() -> None:
    program, script = chain(), Script()
    feedback = run(backward(program, failed_traces(program, script, count=9)), script)
    assert [item.text.count("\n") for item in feedback] == [0, 0], "equal critiques are told once"
    assert feedback[0].examples == ("0",)


def test_a_failed_step_is_told_what_failed() -> None:
    program, script = chain(), Script()
    example = Example("1", {"question": "Q"}, ("right",))
    step = Step("plan", {"question": "Q"}, {}, error="too long")
    trace = Trace(program.fingerprint, example, (step,), Prediction("", error="plan: too long"), 0.0)
    feedback = run(backward(program, [trace]), script)
    assert [item.parameter for item in feedback] == ["plan.instruction"]
    assert "Mistake: The step failed: too long." in script.critiques[0]
    assert loss_in_words(trace).startswith("There was no answer (plan: too long)")


def test_cross_entropy_is_of_the_accepted_choices_and_failing_costs_most() -> None:
    example = Example("1", {}, ("a", "b"))
    sure = Trace("p", example, (), Prediction("a", probabilities={"a": 0.5, "b": 0.5, "c": 0.0}), 1.0)
    wrong = Trace("p", example, (), Prediction("c", probabilities={"a": 0.0, "b": 0.0, "c": 1.0}), 0.0)
    failed = Trace("p", example, (), Prediction("", error="no"), 0.0)
    text = Trace("p", example, (), Prediction("a"), 1.0)
    assert cross_entropy(sure) == 0.0
    assert cross_entropy(wrong) == cross_entropy(failed)
    assert cross_entropy(text) is None
    assert mean_loss([text, text]) == 0.0
