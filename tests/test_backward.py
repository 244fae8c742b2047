"""Backward against graphs worked by hand: who is asked about what, in which order, with which words."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.feedback.backward import backward, loss_in_words
from engine.feedback.losses import cross_entropy, mean_loss
from engine.flows import Flow
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Refine, Vote
from engine.records import Chat, Example, Feedback, Generate, Judgement, Prediction, Request, Step, Trace
from engine.store.store import Store
from engine.tasks.metrics import METRICS

END = " should change so that this mistake does not happen."


class Script:
    """Answers a call of the program by the first of its words that stand in the prompt, or else by a fixed text each.

    A critique names what it was asked about and, by its first word, the instruction that was shown.
    """

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self.critiques: list[str] = []
        self._answers = answers or {"Solve it.": "wrong", "Draft it.": "my draft", "Plan the work.": "my plan"}

    def __call__(self, request: Request, prompt: str) -> str:
        assert isinstance(request, Generate)
        if request.role == "task":
            return next(answer for words, answer in self._answers.items() if words in prompt)
        assert isinstance(request.prompt, Chat)
        asked = request.prompt.messages[-1].text
        self.critiques.append(asked)
        target = asked.split("say how the ")[1].split(" should change")[0]
        first = asked.removeprefix("Instruction: ").split()[0]
        return f"Change the {target} of {first}"


def run(flow: Flow[list[Feedback]], script: Script) -> list[Feedback]:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        return runtime.run(flow)


def failed_traces(program: Program, script: Script, count: int = 1) -> list[Trace]:
    examples = [Example(str(number), {"question": f"Q{number}"}, ("right",)) for number in range(count)]
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        return runtime.run(forward(program, examples, METRICS["exact_match"]))


def worked(program: Program, *messages: str) -> list[Feedback]:
    """The feedback on one failed execution, which asked for exactly these critiques in this order."""
    script = Script()
    feedback = run(backward(program, failed_traces(program, script)), script)
    assert script.critiques == list(messages)
    return feedback


def asked(shown: str, mistakes: list[str], what: str) -> str:
    """The message that asks how `what` should change."""
    told = "".join(f"\nMistake: {text}" for text in mistakes)
    return f"{shown}{told}\nIn one sentence, say how the {what}{END}"


LOSS = 'The answer was "wrong", but "right" is right.'
SHOWN = {
    "plan": "Instruction: Plan the work.\nQuestion: Q0\nPlan: my plan",
    "draft": "Instruction: Draft it.\nPlan: my plan\nDraft: my draft",
}


def chain() -> Program:
    question = Input("question")
    plan = Predict("Plan the work.", output="plan")(question)
    return Program(Predict("Solve it.", output="answer")(question, plan))


def test_a_chain_of_three_passes_the_gradient_back_link_by_link() -> None:
    plan = Predict("Plan the work.", output="plan")(Input("question"))
    draft = Predict("Draft it.", output="draft")(plan)
    answer = "Instruction: Solve it.\nDraft: my draft\nAnswer: wrong"
    feedback = worked(
        Program(Predict("Solve it.", output="answer")(draft)),
        asked(answer, [LOSS], "instruction"),
        asked(answer, [LOSS], "draft"),
        asked(SHOWN["draft"], ["Change the draft of Solve"], "instruction"),
        asked(SHOWN["draft"], ["Change the draft of Solve"], "plan"),
        asked(SHOWN["plan"], ["Change the plan of Draft"], "instruction"),
    )
    assert feedback == [
        Feedback("plan.instruction", "- Change the instruction of Plan", ("0",)),
        Feedback("draft.instruction", "- Change the instruction of Draft", ("0",)),
        Feedback("answer.instruction", "- Change the instruction of Solve", ("0",)),
    ]


def test_fan_out_a_node_read_by_two_hears_both_the_one_nearer_the_output_first() -> None:
    plan = Predict("Plan the work.", output="plan")(Input("question"))
    draft = Predict("Draft it.", output="draft")(plan)
    answer = "Instruction: Solve it.\nPlan: my plan\nDraft: my draft\nAnswer: wrong"
    worked(
        Program(Predict("Solve it.", output="answer")(plan, draft)),
        asked(answer, [LOSS], "instruction"),
        asked(answer, [LOSS], "plan"),
        asked(answer, [LOSS], "draft"),
        asked(SHOWN["draft"], ["Change the draft of Solve"], "instruction"),
        asked(SHOWN["draft"], ["Change the draft of Solve"], "plan"),
        asked(SHOWN["plan"], ["Change the plan of Solve", "Change the plan of Draft"], "instruction"),
    )


def test_fan_in_two_nodes_read_by_one_each_hear_what_was_said_of_their_own() -> None:
    question = Input("question")
    plan = Predict("Plan the work.", output="plan")(question)
    draft = Predict("Draft it.", output="draft")(question)
    answer = "Instruction: Solve it.\nPlan: my plan\nDraft: my draft\nAnswer: wrong"
    worked(
        Program(Predict("Solve it.", output="answer")(plan, draft)),
        asked(answer, [LOSS], "instruction"),
        asked(answer, [LOSS], "plan"),
        asked(answer, [LOSS], "draft"),
        asked("Instruction: Draft it.\nQuestion: Q0\nDraft: my draft", ["Change the draft of Solve"], "instruction"),
        asked(SHOWN["plan"], ["Change the plan of Solve"], "instruction"),
    )


def test_a_parameter_used_several_times_in_an_execution_gathers_the_gradients_of_every_use() -> None:
    step = Step(
        "answer",
        {"question": "Q0"},
        {"answer": "wrong"},
        steps=(
            Step("of", {"question": "Q0"}, {"answer": "a"}),
            Step("critique 1", {"question": "Q0", "answer": "a"}, {"critique": "weak"}),
            Step("revise 1", {"question": "Q0", "answer": "a", "critique": "weak"}, {"answer": "b"}),
            Step("critique 2", {"question": "Q0", "answer": "b"}, {"critique": "dull"}),
            Step("revise 2", {"question": "Q0", "answer": "b", "critique": "dull"}, {"answer": "wrong"}),
        ),
    )
    program = Program(Refine(Predict("Draft it."), critique="Find faults.", revise="Mend it.", keep="last")(
        Input("question"), name="answer"
    ))  # fmt: skip
    trace = Trace("p", Example("0", {"question": "Q0"}, ("right",)), (step,), Prediction("wrong"), 0.0)
    script = Script()
    feedback = run(backward(program, [trace]), script)
    last = "Instruction: Mend it.\nQuestion: Q0\nAnswer: b\nCritique: dull\nAnswer: wrong"
    first = "Instruction: Mend it.\nQuestion: Q0\nAnswer: a\nCritique: weak\nAnswer: b"
    assert script.critiques == [
        asked(last, [LOSS], "instruction"),
        asked(last, [LOSS], "answer"),
        asked(last, [LOSS], "critique"),
        asked(
            "Instruction: Find faults.\nQuestion: Q0\nAnswer: b\nCritique: dull",
            ["Change the critique of Mend"],
            "instruction",
        ),
        asked(first, ["Change the answer of Mend"], "instruction"),
        asked(first, ["Change the answer of Mend"], "answer"),
        asked(first, ["Change the answer of Mend"], "critique"),
        asked(
            "Instruction: Find faults.\nQuestion: Q0\nAnswer: a\nCritique: weak",
            ["Change the critique of Mend"],
            "instruction",
        ),
        asked(
            "Instruction: Draft it.\nQuestion: Q0\nAnswer: a", ["Change the answer of Mend"], "instruction"
        ),
    ]  # fmt: skip
    assert feedback == [
        Feedback("answer.critique", "- Change the instruction of Find (2 times)", ("0",)),
        Feedback("answer.revise", "- Change the instruction of Mend (2 times)", ("0",)),
        Feedback("answer.of.instruction", "- Change the instruction of Draft", ("0",)),
    ]


def test_samples_of_one_layer_blame_its_one_instruction_in_the_order_of_the_samples() -> None:
    texts = {1: "wrong", 2: "right", 3: "Wrong"}
    steps = [Step(f"of {number}", {"question": "Q0"}, {"answer": text}) for number, text in texts.items()]
    step = Step("answer", {"question": "Q0"}, {"answer": "wrong"}, steps=tuple(steps))
    program = Program(Vote(Predict("Solve it.", temperature=0.7), n=3)(Input("question"), name="answer"))
    trace = Trace("p", Example("0", {"question": "Q0"}, ("right",)), (step,), Prediction("wrong"), 0.0)
    script = Script()
    (feedback,) = run(backward(program, [trace]), script)
    assert script.critiques == [
        asked("Instruction: Solve it.\nQuestion: Q0\nAnswer: wrong", [LOSS], "instruction"),
        asked("Instruction: Solve it.\nQuestion: Q0\nAnswer: Wrong", [LOSS], "instruction"),
    ]
    assert feedback == Feedback("answer.of.instruction", "- Change the instruction of Solve", ("0",))


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
        ("gradient", "answer.instruction", "Change the instruction of Solve", None),
        ("gradient", "plan.plan", "Change the plan of Solve", None),
        ("gradient", "plan.instruction", "Change the instruction of Plan", None),
    ]


def judged(trace: Trace, score: float, *judgements: Judgement) -> Trace:
    return replace(trace, score=score, judgements=judgements)


def test_the_first_step_that_a_judge_found_wrong_is_to_blame_and_nothing_after_it() -> None:
    program, script = chain(), Script()
    (trace,) = failed_traces(program, script)
    wrong = judged(trace, 0.0, Judgement("answer", 0.1, "It is rude."), Judgement("plan", 0.2, "It has no steps."))
    feedback = run(backward(program, [wrong]), script)
    assert script.critiques == [asked(SHOWN["plan"], ["It has no steps."], "instruction")]
    assert [item.parameter for item in feedback] == ["plan.instruction"]


def test_a_judge_of_the_answer_is_heard_beside_the_loss_and_alone_where_the_answer_is_right() -> None:
    program, script = chain(), Script()
    (trace,) = failed_traces(program, script)
    rude, fine = Judgement("", 0.1, "It is rude."), Judgement("plan", 0.9)
    run(backward(program, [judged(trace, 0.0, rude, fine)]), script)
    said = [line for line in script.critiques[0].split("\n") if line.startswith("Mistake: ")]
    assert said == [f"Mistake: {loss_in_words(trace)}", "Mistake: It is rude."]
    script.critiques.clear()
    run(backward(program, [judged(trace, 1.0, rude, fine)]), script)
    said = [line for line in script.critiques[0].split("\n") if line.startswith("Mistake: ")]
    assert said == ["Mistake: It is rude."]
    assert run(backward(program, [judged(trace, 1.0, fine)]), script) == []


def test_right_executions_give_no_feedback_and_cost_no_call() -> None:
    program, script = chain(), Script()
    trace = failed_traces(program, script)[0]
    right = Trace(trace.program, trace.example, trace.steps, trace.prediction, 1.0)
    assert run(backward(program, [right]), script) == []
    assert script.critiques == []


def test_equal_critiques_of_many_traces_are_told_once_with_their_number() -> None:
    program, script = chain(), Script()
    feedback = run(backward(program, failed_traces(program, script, count=9)), script)
    assert [item.text for item in feedback] == [
        "- Change the instruction of Plan (9 times)",
        "- Change the instruction of Solve (9 times)",
    ]
    assert feedback[0].examples == tuple("012345678")


def test_a_trace_that_failed_in_the_middle_blames_the_node_that_failed_and_what_it_read_from() -> None:
    plan = Predict("Plan the work.", output="plan")(Input("question"))
    draft = Predict("Draft it.", output={"size": "int"})(plan, name="draft")
    program = Program(Predict("Solve it.", output="answer")(draft))
    script = Script({"Draft it.": "none", "Plan the work.": "my plan"})
    (trace,) = failed_traces(program, script)
    error = "unparsed: size: expected a whole number, found 'none'"
    assert [step.error for step in trace.steps] == [None, error]
    feedback = run(backward(program, [trace]), script)
    shown = "Instruction: Draft it.\nPlan: my plan"
    assert script.critiques == [
        asked(shown, [f"The step failed: {error}."], "instruction"),
        asked(shown, [f"The step failed: {error}."], "plan"),
        asked(SHOWN["plan"], ["Change the plan of Draft"], "instruction"),
    ]
    assert [item.parameter for item in feedback] == ["plan.instruction", "draft.instruction"]
    assert loss_in_words(trace) == f'There was no answer (draft: {error}); "right" was expected.'


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
