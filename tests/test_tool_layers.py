"""Tools in programs: called directly, chosen by the model, and used turn after turn by an agent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_layers import Script, done, gradients, round_trip

from engine import Input, Program, bind, open_runtime
from engine.cli import run
from engine.errors import ContentError, UsageError
from engine.inference.service import Service
from engine.program.layer import Layer
from engine.program.layers import Agent, Tool, ToolCall
from engine.program.tools.written import read_functions
from engine.records import Generate, Request, Role, Step
from engine.sandbox.service import SandboxService
from engine.tools.service import ToolService

TOOLS = '''
CALLS = []


def add(a: int, b: float = 0.0) -> float:
    """Add two numbers."""
    CALLS.append((a, b))
    return a + b


def shout(text: str) -> str:
    """Say it loudly."""
    print("shouting")
    return text.upper()


def fail(text: str) -> str:
    """Never works."""
    raise OSError("the disk is gone")


def finish(text: str) -> str:
    """Has a name that is taken."""
    return text
'''
BY_NAME = "a call gives every argument by its name: no * and no /"
OWN = '''
import re


def numbers(text: str, most: int = 9) -> list[float]:
    """The numbers in a text.

    At most so many.
    """
    return [_read(found) for found in re.findall(r"[0-9]+", text)][:most]


def _read(text):
    return int(text)


def total(values: list[int]) -> int:
    """Add numbers."""
    return sum(values)
'''
DECLARED = json.dumps(
    [
        {"name": name, "parameters": {"type": "dict", "properties": {takes: {"type": kind}}, "required": [takes]}}
        for name, takes, kind in (("fly", "to", "string"), ("drive", "km", "integer"))
    ]
)


@pytest.fixture
def services(tmp_path: Path) -> Mapping[Role, Service]:
    (tmp_path / "tools.py").write_text(TOOLS)
    return {"tools": ToolService(tmp_path)}


def turn(thought: str, name: str, **arguments: Any) -> str:
    return f" {thought}\nAction: {json.dumps({'name': name, 'arguments': arguments})}"


def as_agent(*turns: str) -> Script:
    """Answers the turns of an agent in their order, by how many observations its prompt holds."""
    return Script({"": lambda request: turns[str(request.prompt).count("Observation:")]})


# ── Tool ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_tool_reads_its_inputs_as_the_types_it_declares(services: Mapping[Role, Service]) -> None:
    step = done(Tool("tools.py:add"), Script({}), services, a="2", b="0.5")
    assert step.outputs == {"result": "2.5"}
    assert len(step.calls) == 2, "one asks what it takes, one calls it"
    assert done(Tool("tools.py:shout"), Script({}), services, text="5").outputs == {"result": "5"}


@pytest.mark.parametrize(
    ("tool", "inputs", "says"),
    [
        ("add", {"a": "two"}, "add"),
        ("add", {"b": "1"}, "a"),
        ("shout", {"text": "x", "volume": "9"}, "volume"),
        ("fail", {"text": "x"}, "tools.py:fail: OSError: the disk is gone"),
    ],
)
def test_a_tool_that_fails_fails_its_node_with_one_line(
    services: Mapping[Role, Service], tool: str, inputs: dict[str, str], says: str
) -> None:
    step = done(Tool(f"tools.py:{tool}"), Script({}), services, **inputs)
    assert step.error is not None
    assert says in step.error
    assert "\n" not in step.error


def test_an_absent_tool_is_named_before_anything_is_asked(services: Mapping[Role, Service]) -> None:
    with pytest.raises(UsageError, match=r"nothing\.py: no such file"):
        done(Tool("nothing.py:add"), Script({}), services, a="1")
    with pytest.raises(ContentError, match="has no function 'subtract'"):
        done(Tool("tools.py:subtract"), Script({}), services, a="1")


def test_a_tool_is_called_once_for_the_same_arguments_until_its_file_changes(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    program = Program(Tool("tools.py:shout")(Input("text")))
    with open_runtime("scripted", store=tmp_path / "store.db", folder=tmp_path) as runtime:
        assert bind(program, runtime)(text="hi").text == "HI"
        paid = runtime.store.calls_paid()
        assert bind(program, runtime)(text="hi").text == "HI"
        assert runtime.store.calls_paid() == paid
        assert runtime.usage.calls == 0, "tools are not calls of a model"
    (tmp_path / "tools.py").write_text(TOOLS.replace("text.upper()", "text + '!'"))
    with open_runtime("scripted", store=tmp_path / "store.db", folder=tmp_path) as runtime:
        assert bind(program, runtime)(text="hi").text == "hi!"


def test_functions_of_one_file_share_what_is_in_it(services: Mapping[Role, Service]) -> None:
    service = services["tools"]
    assert isinstance(service, ToolService)
    add, shout = service.function("tools.py:add"), service.function("tools.py:shout")
    add(1)
    assert shout.__globals__["CALLS"] == [(1, 0.0)]


def test_what_a_tool_prints_stays_out_of_the_results(
    services: Mapping[Role, Service], capsys: pytest.CaptureFixture[str]
) -> None:
    done(Tool("tools.py:shout"), Script({}), services, text="hi")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "shouting\n")


def test_what_is_said_of_a_tools_result_is_said_of_its_arguments() -> None:
    step = Step("node", {"a": "2", "b": "3"}, {"result": "5"})
    script = Script({})
    found = gradients(Tool("tools.py:add"), step, script, "b")
    assert found.inputs == {"b": ["add gave '5': It was wrong."]}
    assert script.asked == []


# ── ToolCall ─────────────────────────────────────────────────────────────────────────────────────


def test_a_chosen_tool_is_called_and_stands_in_the_trace(services: Mapping[Role, Service]) -> None:
    layer = ToolCall(("tools.py:add", "tools.py:shout"))
    script = Script({"Choose": '{"name": "add", "arguments": {"a": 2, "b": 3}}'})
    step = done(layer, script, services, question="What is 2 + 3?")
    assert step.outputs == {"answer": "5.0"}
    assert [(inner.node, dict(inner.outputs)) for inner in step.steps] == [("add", {"result": "5.0"})]
    assert len(step.steps[0].calls) == 1


def test_functions_that_a_row_declares_are_chosen_from_but_not_called() -> None:
    seen: list[Request] = []

    def script(request: Request) -> str:
        seen.append(request)
        return '{"name": "drive", "arguments": {"km": 3}}'

    step = done(ToolCall(functions="functions"), Script({"": script}), functions=DECLARED, question="Go.")
    assert json.loads(step.outputs["answer"]) == {"name": "drive", "arguments": {"km": 3}}
    assert isinstance(seen[0], Generate)
    assert seen[0].grammar is not None
    assert "fly(to: str)" in str(seen[0].prompt)
    assert "Functions:" not in str(seen[0].prompt), "they are described, not repeated"


@pytest.mark.parametrize(
    ("functions", "reply", "says"),
    [
        ("nothing", "", "expected a list of tools as JSON"),
        (DECLARED, "{", "unparsed: expected a call as JSON"),
        (DECLARED, '{"name": "drive", "arguments": {"km": "x"}}', "unparsed: drive: "),
    ],
)
def test_a_call_that_cannot_be_made_is_a_recorded_failure(functions: str, reply: str, says: str) -> None:
    step = done(ToolCall(functions="functions"), Script({"": reply}), functions=functions, question="Go.")
    assert step.error is not None
    assert step.error.startswith(says)


# ── Agent ────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_uses_tools_until_it_finishes(services: Mapping[Role, Service]) -> None:
    script = as_agent(turn("Add first.", "add", a=2, b=3), turn("Now I know.", "finish", answer="five"))
    step = done(Agent(("tools.py:add",)), script, services, question="2 + 3?")
    assert step.outputs == {"answer": "five"}
    assert [inner.node for inner in step.steps] == ["think 1", "add 1", "think 2"]
    assert step.steps[0].outputs["thought"] == "Add first."
    assert step.steps[1].inputs == {"a": "2", "b": "3.0"}
    assert step.steps[1].outputs == {"observation": "5.0"}
    assert all(len(inner.calls) == 1 for inner in step.steps)


def test_a_tool_that_fails_is_an_observation_and_the_agent_goes_on(services: Mapping[Role, Service]) -> None:
    script = as_agent(turn("Try it.", "fail", text="x"), turn("No use.", "finish", answer="unknown"))
    step = done(Agent(("tools.py:fail",)), script, services, question="Q")
    assert step.outputs == {"answer": "unknown"}
    assert step.steps[1].outputs["observation"] == "error: tools.py:fail: OSError: the disk is gone"


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_the_last_turn_can_only_finish_and_every_turn_goes_on_from_the_last(
    services: Mapping[Role, Service], style: Any
) -> None:
    asked: list[Generate] = []

    def script(request: Generate) -> str:
        asked.append(request)
        return turn("More.", "shout", text="hi") if len(asked) < 3 else turn("Enough.", "finish", answer="HI")

    step = done(Agent(("tools.py:shout",), steps=3, style=style), Script({"": script}), services, question="Q")
    assert step.outputs == {"answer": "HI"}
    assert len(asked) == 3
    prompts = [request.prompt.lead if style == "chat" else request.prompt.text for request in asked]  # type: ignore[union-attr]
    assert prompts[1].startswith(prompts[0]), "so that what was computed is used again"
    assert prompts[2].startswith(prompts[1])
    assert "shout" in (asked[1].grammar or "")
    assert "shout" not in (asked[2].grammar or "")


def test_a_turn_that_cannot_be_read_fails_and_keeps_what_came_before(services: Mapping[Role, Service]) -> None:
    script = as_agent(turn("Add.", "add", a=1), " I give up")
    step = done(Agent(("tools.py:add",)), script, services, question="Q")
    assert step.error is not None
    assert step.error.startswith("unparsed: expected a call as JSON")
    assert [inner.node for inner in step.steps] == ["think 1", "add 1", "think 2"]


def test_a_tool_with_a_name_the_agent_uses_is_refused(services: Mapping[Role, Service]) -> None:
    step = done(Agent(("tools.py:finish",)), Script({}), services, question="Q")
    assert step.error == "tool 'tools.py:finish': 'finish' is a name that the agent uses itself: rename it"


def test_an_agent_may_have_functions_of_its_own_which_run_in_the_sandbox(tmp_path: Path) -> None:
    sandbox = SandboxService(tmp_path)
    asked: list[str] = []
    turns = (
        turn("Read it.", "numbers", text="17 and 25"),
        turn("Add.", "total", values=[17, 25]),
        turn("Again.", "total", values=[]),
        turn("Done.", "finish", answer="42"),
    )

    def script(request: Generate) -> str:
        asked.append(str(request.prompt))
        return turns[len(asked) - 1]

    step = done(Agent(source=OWN), Script({"": script}), {"sandbox": sandbox}, question="17 + 25?")
    sandbox.close()
    assert step.outputs == {"answer": "42"}
    assert [inner.outputs["observation"] for inner in step.steps[1:-1:2]] == ["[17, 25]", "42", "0"]
    assert all(len(inner.calls) == 1 for inner in step.steps)
    assert "- numbers(text: str, most: int = 9): The numbers in a text." in asked[0]
    assert "_read" not in asked[0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os\n    return os.environ['HOME']", "RuntimeError"),
        ("return [0] * 10**10", "memory limit"),
        ("return open('/etc/passwd').read()", "PermissionError"),
        ("return nobody(1)", "NameError"),
    ],
)
def test_what_a_function_of_its_own_may_not_do_is_an_observation(tmp_path: Path, body: str, says: str) -> None:
    sandbox = SandboxService(tmp_path)
    script = as_agent(turn("Try.", "spy"), turn("No.", "finish", answer="-"))
    step = done(Agent(source=f"def spy():\n    {body}\n"), script, {"sandbox": sandbox}, question="Q")
    sandbox.close()
    assert step.outputs == {"answer": "-"}
    assert step.steps[1].outputs["observation"].startswith("error: ")
    assert says in step.steps[1].outputs["observation"]


def test_an_agents_functions_are_a_weight_that_holds_only_what_can_be_called() -> None:
    program = Program(Agent(("tools.py:add",), source=OWN)(Input("question")))
    assert program.parameters["answer.source"].value == OWN
    emptied = program.replace({"answer.source": " \n"})
    assert emptied == Program(Agent(("tools.py:add",))(Input("question")))
    for wrong in ("def f(:", "def f(): pass\ndef f(): pass", "def f(a, /): pass", "@x\ndef f(): pass", 3):
        with pytest.raises(ContentError, match=r"^answer\.source: "):
            program.replace({"answer.source": wrong})
    alone = Program(Agent(source=OWN)(Input("question")))
    with pytest.raises(ContentError, match="an agent needs tools"):
        alone.replace({"answer.source": ""})


def test_a_function_of_its_own_with_a_taken_name_is_refused(services: Mapping[Role, Service]) -> None:
    for name in ("finish", "add"):
        layer = Agent(("tools.py:add",), source=f"def {name}(x: int):\n    return x")
        step = done(layer, Script({}), services, question="Q")
        assert step.error is not None
        assert step.error.endswith(("stands twice: give every tool a name of its own", "rename it")), step.error


@settings(max_examples=25)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_source_is_read_or_refused_in_one_line(before: str, after: str) -> None:
    source = f"{before}def f(a: int):\n    return a{after}"
    said = ""
    try:
        read_functions(source)
    except ContentError as error:
        said = str(error)
    assert "\n" not in said


def test_an_agents_instruction_is_criticized_with_its_turns_in_view(services: Mapping[Role, Service]) -> None:
    script = as_agent(turn("Add first.", "add", a=2, b=3), turn("Now I know.", "finish", answer="six"))
    layer = Agent(("tools.py:add",))
    step = done(layer, script, services, question="2 + 3?")
    critic = Script({})
    found = gradients(layer, step, critic)
    assert found.parameters == {"instruction": ["change instruction"]}
    assert "Think 1: Add first." in critic.asked[0]
    assert "Add 1: 5.0" in critic.asked[0]
    assert "Mistake: It was wrong." in critic.asked[0]


def test_an_agent_costs_a_call_a_turn() -> None:
    cost = Agent(("tools.py:add",), steps=3, max_tokens=100).cost({"question": 20})
    assert (cost.calls, cost.written) == (3, 300)
    assert cost.read > 3 * 20


# ── all of them ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "layer",
    [
        Tool("tools.py:add"),
        ToolCall(("tools.py:add",), style="plain"),
        ToolCall(functions="functions"),
        Agent(("tools.py:add",), steps=2),
        Agent(index="kb"),
        Agent(source=OWN),
    ],
)
def test_they_are_written_and_read_alike(layer: Layer) -> None:
    round_trip(layer, "functions", "question")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"layer": "agent"},
            "an agent needs tools (your functions), an index to search, or a source with functions",
        ),
        ({"layer": "agent", "source": "def f(:"}, "source: line 1: no Python: invalid syntax"),
        ({"layer": "agent", "source": "def f(*a):\n    pass"}, f"source: line 1: f: {BY_NAME}"),
        ({"layer": "agent", "index": "kb", "steps": 0}, "steps: expected a number from 1 to 20, found 0"),
        ({"layer": "tool_call"}, "give either tools (your functions) or functions (the input that declares them)"),
        ({"layer": "tool_call", "tools": "x.py:f"}, "tools: expected a list, found 'x.py:f'"),
        ({"layer": "tool"}, "python is missing"),
    ],
)
def test_a_wrong_setting_is_named(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"inputs": ["question"], **spec}})
    assert str(raised.value) == f"node 'a': {says}"


@pytest.mark.model
def test_the_real_model_thinks_acts_and_answers(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    with open_runtime("smollm2-135m", store=":memory:", folder=tmp_path) as runtime:
        agent = bind(Program(Agent(("tools.py:add",), steps=3)(Input("question"))), runtime)
        assert agent(question="What is 17 + 25?").error is None
        chooser = bind(Program(ToolCall(functions="functions")(Input("functions"), Input("question"))), runtime)
        answer = json.loads(chooser(functions=DECLARED, question="Drive 12 km.").text)
        assert answer["name"] in ("fly", "drive")


def test_what_is_missing_is_named_by_its_line_in_the_task(make_task: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent = {"layer": "agent", "inputs": ["question"], "steps": 2, "tools": ["tools.py:nothing"]}
    task: Path = make_task(program={"answer": agent}, metric="contains")
    (task.parent / "tools.py").write_text(TOOLS)
    assert run(["eval", str(task)]) == 1
    line = next(n for n, text in enumerate(task.read_text().splitlines(), 1) if "tools.py:nothing" in text)
    assert f"task.yaml:{line}: " in capsys.readouterr().err
