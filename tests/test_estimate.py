"""Estimates: a program's cost worked by hand, lengths from rows, and never less than what an execution asks for."""

import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support_cli import Cli
from support_layers import Script

from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.program.cost import Cost, tokens
from engine.program.estimate import ASSUMED_TOKENS, estimate, mean_sizes
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Retrieve, Sequential
from engine.program.saved import SavedProgram
from engine.records import Example
from engine.store.store import Store

TaskMaker = Callable[..., Path]


def chain(plan_tokens: int = 30) -> Program:
    """A search, then a plan and an answer made of what it found."""
    question = Input("question")
    passages = Retrieve("facts", k=2)(question)
    steps = {"plan": Predict("Plan it.", "plan", max_tokens=plan_tokens), "solve": Predict("Do it.", "answer")}
    return Program(Sequential(steps)(question, passages, name="answer"))


def test_every_node_reads_what_the_nodes_before_it_may_give() -> None:
    read_by_both = 10 + 2 * 256  # the question, and two passages
    plan, solve = 2 + read_by_both, 2 + read_by_both + 30
    assert estimate(chain(), {"question": 10}) == Cost(2, plan + solve, 30 + 64, {"answer.answer": 64})


def test_an_input_of_unknown_length_is_assumed() -> None:
    program = Program(Predict("Do it.", "answer")(Input("question"), Input("context")))
    assert estimate(program, {"question": 10}) == Cost(1, 2 + 10 + ASSUMED_TOKENS, 64, {"answer.answer": 64})


def test_fields_of_one_name_in_two_nodes_are_kept_apart() -> None:
    question = Input("question")
    long, short = (Predict(text, "text", max_tokens=most)(question, name=text) for text, most in (("a", 500), ("b", 5)))
    last = Predict("c", "answer", max_tokens=1)
    sources = {"question": "question", "text": "b.text"}
    nodes = [long.node, short.node, last(question, short, name="c").node]
    program = Program.assemble(("question",), [node for node in nodes if node], "c.answer")
    assert program.node("c").sources == sources
    assert estimate(program, {"question": 10}).read == (1 + 10) * 2 + (1 + 10 + 5)


@settings(max_examples=30)
@given(st.text("ab ", min_size=1, max_size=200), st.integers(1, 40))
def test_an_execution_asks_for_no_more_than_was_estimated(question: str, written: int) -> None:
    asked: list[str] = []

    def answer(request: object) -> str:
        asked.append("call")
        return "x " * written

    steps = {"plan": Predict("Plan it.", "plan", max_tokens=40), "solve": Predict("Do it.", "answer", max_tokens=40)}
    program = Program(Sequential(steps)(Input("question"), name="answer"))
    cost = estimate(program, {"question": tokens(question)})
    with Runtime({"task": ScriptedBackend(Script({"it.": answer}))}, Store(":memory:")) as runtime:
        runtime.run(forward(program, [Example("e", {"question": question})]))
        assert runtime.usage.generated_tokens <= cost.written
    assert len(asked) == cost.calls == 2


def test_mean_sizes_are_those_of_the_rows_rounded_up() -> None:
    rows = [Example("a", {"text": "x" * 40, "note": ""}), Example("b", {"text": "x" * 41, "note": "y"})]
    assert mean_sizes(rows) == {"text": 11, "note": 1}
    assert mean_sizes([]) == {}


def test_graph_ends_with_the_cost_by_the_rows_of_a_task(cli: Cli, make_task: TaskMaker) -> None:
    rows = [{"question": letter * 600, "label": "person" if letter < "c" else "place"} for letter in "abcd"]
    path = make_task(rows)
    done = cli("graph", path)
    said = tokens("What does the question ask for?") + 150 + tokens("person") + tokens("place")
    assert said == 162
    assert done.out.splitlines()[-1] == "at most 1 call an example, about 160 tokens read and 0 written"
    body = cli("graph", path, "--json").json
    assert body["cost"] == {
        "calls": 1, "read": said, "written": 0, "bounded": True, "inputs": {"question": 150}, "inputs_assumed": False
    }  # fmt: skip
    assert body["lines"] == done.out.splitlines()


def test_graph_says_what_it_assumed_of_a_saved_program(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    SavedProgram("p", "scripted", "", chain()).save(path)
    line = cli("graph", path).out.splitlines()[-1]
    total = estimate(chain(), {"question": 100}).read
    assert total == 1258
    assert line == (
        "at most 2 calls an example, about 1,300 tokens read and 94 written, where every input has 100 tokens"
    )
    assert json.loads(cli("graph", path, "--json").out)["cost"]["inputs_assumed"] is True
