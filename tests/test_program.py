"""Programs: built by calls, read from mappings, edited by checked values, never changed in place."""

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError
from engine.forward import bind
from engine.program.declared import declared_program
from engine.program.graph import Program
from engine.program.layer import Input, Node, Symbol
from engine.program.layers import Predict
from engine.program.parameters import Bias, Choice, Demo, Demos, Number, Text
from engine.program.saved import SavedProgram, load_saved
from engine.records import Request
from engine.tasks.splits import load_splits
from engine.tasks.taskfile import load_task

TaskMaker = Callable[..., Path]


def two_steps() -> Program:
    question = Input("question")
    plan = Predict("Plan.", output="plan")(question)
    return Program(Predict("Answer.", output="answer")(question, plan))


def chooser() -> Program:
    return Program(Predict("Choose.", output="kind", choices=("a", "b", "c"))(Input("question")))


def spec(**settings: Any) -> dict[str, Any]:
    return {"layer": "predict", "inputs": ["question"], "instruction": "Answer."} | settings


def complaint(mapping: Mapping[str, Any]) -> tuple[str, tuple[str | int, ...]]:
    """What is said about a mapping, and the place it is said of."""
    with pytest.raises(ContentError) as caught:
        Program.from_mapping(mapping)
    return str(caught.value), caught.value.path


# ── building by calls ────────────────────────────────────────────────────────────────────────────


def test_calling_a_layer_adds_a_node_named_after_its_main_output() -> None:
    program = two_steps()
    assert program.inputs == ("question",)
    assert [(node.name, dict(node.sources)) for node in program.nodes] == [
        ("plan", {"question": "question"}),
        ("answer", {"question": "question", "plan": "plan.plan"}),
    ]
    assert (program.output, program.output_node.name, program.output_field) == ("answer.answer", "answer", "answer")


def test_a_call_may_name_its_node() -> None:
    program = Program(Predict("Answer.")(Input("question"), name="first"))
    assert (program.output, program.node("first").layer.outputs) == ("first.answer", ("answer",))


def test_the_main_output_is_the_last_and_the_others_can_be_read_too() -> None:
    both = Predict("Think.", output=("reason", "answer"))(Input("question"), name="think")
    assert both.reference == "think.answer"
    program = Program(Predict("Judge.", output="verdict")(replace(both, field="reason")))
    assert dict(program.node("verdict").sources) == {"reason": "think.reason"}


def test_nodes_that_the_output_does_not_need_are_left_out() -> None:
    question = Input("question")
    Predict("Unused.", output="unused")(question)
    assert [node.name for node in Program(Predict("Answer.")(question)).nodes] == ["answer"]


def test_a_shared_node_stands_once_and_before_everything_that_reads_it() -> None:
    question = Input("question")
    root = Predict("Root.", output="root")(question)
    left, right = Predict("Left.", output="left")(root), Predict("Right.", output="right")(root)
    program = Program(Predict("Join.", output="join")(right, left))
    names = [node.name for node in program.nodes]
    assert sorted(names) == ["join", "left", "right", "root"]
    assert (names[0], names[-1]) == ("root", "join")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Program(Input("question")), "a program needs at least one layer"),
        (lambda: Input("two words"), "input name 'two words': use letters, digits and _"),
        (lambda: Input("1st"), "input name '1st'"),
        (lambda: Predict("x")(Input("question"), name="a-b"), "node name 'a-b'"),
        (lambda: Predict("x", output="a b"), "output name 'a b'"),
        (lambda: Predict("x", output=("a", "a")), "an output is named twice"),
        (lambda: Predict("x")(Input("q"), Input("q")), "node 'answer' reads two fields called 'q'"),
        (lambda: Program(Predict("x", output="q")(Input("q"))), "the name 'q' is used twice"),
        (
            lambda: Program(Predict("x")(Predict("y", output="b")(Input("q"), name="n"), name="n")),
            "two nodes are called 'n'",
        ),
        (lambda: Predict("x", choices=("a",)), "at least two different labels"),
        (lambda: Predict("x", choices=("a", "a")), "choice 'a' stands twice"),
        (lambda: Predict("x", choices=("a", " ")), "a choice is blank"),
        (lambda: Predict("x", output=("a", "b"), choices=("c", "d")), "exactly one output"),
        (lambda: Predict("x", bias=(1.0,)), "bias has no meaning with open text"),
        (lambda: Predict("x", list_choices="no"), "list_choices has no meaning with open text"),
        (lambda: Predict("x", choices=("a", "b"), temperature=1.0), "temperature has no meaning with closed choices"),
        (lambda: Predict("x", choices=("a", "b"), max_tokens=9), "max_tokens has no meaning with closed choices"),
        (lambda: Predict(" ")(Input("q")), "node 'answer': instruction: expected text"),
        (lambda: Predict("x", temperature=3)(Input("q")), "node 'answer': temperature: expected a number from 0 to 2"),
        (lambda: Predict("x", choices=("a", "b"), bias=(1.0,))(Input("q")), "node 'answer': bias: expected 2 numbers"),
        (
            lambda: Predict("x", demos=(Demo({"other": "1"}, {"answer": "2"}),))(Input("q")),
            "node 'answer': demos: a demo's inputs are q, found other",
        ),
    ],
)
def test_what_cannot_be_a_program_is_refused_when_it_is_built(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(ContentError) as caught:
        build()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "output", "says"),
    [
        ([("a", {"b": "b.b"}), ("b", {"a": "a.a"})], "a.a", "in a circle or from nowhere: a, b"),
        ([("a", {"a": "a.a"})], "a.a", "in a circle or from nowhere: a"),
        ([("a", {"x": "nowhere"})], "a.a", "node 'a' reads 'nowhere', which is no input"),
        ([("b", {"q": "q"}), ("a", {"x": "b.other"})], "a.a", "node 'a' reads 'b.other'"),
        ([("a", {"q": "q"}), ("a", {"q": "q"})], "a.a", "the name 'a' is used twice"),
        ([("q", {"q": "q"})], "q.q", "the name 'q' is used twice"),
        ([("a", {"q": "q"})], "a.other", "output 'a.other' is no node's field"),
        ([("a", {"q": "q"})], "q", "output 'q' is no node's field"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    nodes: list[tuple[str, dict[str, str]]], output: str, says: str
) -> None:
    with pytest.raises(ContentError) as caught:
        Program.assemble(("q",), [Node(name, Predict("x", output=name), sources) for name, sources in nodes], output)
    assert says in str(caught.value)


def test_parts_may_come_in_any_order() -> None:
    program = two_steps()
    assert Program.assemble(program.inputs, reversed(program.nodes), program.output) == program


# ── mappings ─────────────────────────────────────────────────────────────────────────────────────


def test_the_mapping_of_a_program_is_plain_and_leaves_defaults_out() -> None:
    program = two_steps().replace({"answer.temperature": 0.5})
    assert program.to_mapping() == {
        "inputs": ["question"],
        "nodes": {
            "plan": {"layer": "predict", "inputs": ["question"], "outputs": ["plan"], "instruction": "Plan."},
            "answer": {
                "layer": "predict",
                "inputs": ["question", "plan.plan"],
                "outputs": ["answer"],
                "instruction": "Answer.",
                "temperature": 0.5,
            },
        },
        "output": "answer.answer",
    }


def test_the_short_form_infers_inputs_and_takes_the_last_node_as_the_answer() -> None:
    nodes = {"plan": spec(instruction="Plan."), "answer": spec(inputs=["question", "plan"])}
    assert Program.from_mapping(nodes) == two_steps()
    assert Program.from_mapping({"nodes": nodes, "inputs": ["question"], "output": "answer"}) == two_steps()


def test_a_field_may_go_by_a_name_of_the_nodes_own() -> None:
    program = Program.from_mapping({"a": spec(), "b": spec(inputs={"draft": "a", "task": "question"})})
    assert dict(program.node("b").sources) == {"draft": "a.a", "task": "question"}
    assert Program.from_mapping(program.to_mapping()) == program


def test_a_node_may_be_called_nodes() -> None:
    assert Program.from_mapping({"nodes": spec()}).output == "nodes.nodes"


def test_nodes_are_ordered_by_what_they_read_whatever_the_order_in_the_file() -> None:
    full = two_steps().to_mapping()
    turned = full | {"nodes": dict(reversed(full["nodes"].items()))}
    assert Program.from_mapping(turned) == two_steps()


@pytest.mark.parametrize(
    ("mapping", "says", "path"),
    [
        ({}, "a program needs at least one node", ()),
        ({"nodes": None}, "a program needs at least one node", ("nodes",)),
        ({"nodes": 5}, "a program needs at least one node", ("nodes",)),
        ({"nodes": {"a": spec()}}, "a program needs inputs: a list of names", ("inputs",)),
        ({"nodes": {"a": spec()}, "inputs": 5}, "a program needs inputs: a list of names", ("inputs",)),
        ({"nodes": {"a": spec()}, "inputs": [["x"]]}, "input name ['x']", ("inputs",)),
        ({"nodes": {"a": spec()}, "inputs": []}, "no input or node is called 'question'", ("nodes", "a", "inputs")),
        ({"nodes": {"a": spec()}, "imputs": []}, "unknown key 'imputs': did you mean 'inputs'?", ("imputs",)),
        ({"nodes": {"a": spec()}, "inputs": ["question"], "output": "b"}, "output 'b' is no node's field", ("output",)),
        (
            {"nodes": {"abc": spec()}, "inputs": ["question"], "output": "abd.x"},
            "'abd.x' names no node: did you mean 'abc'?",
            ("output",),
        ),
        ({"a b": spec()}, "node name 'a b'", ("a b",)),
        ({"a": 5}, "node 'a': expected a mapping with a layer: ", ("a",)),
        ({"a": {"inputs": ["q"]}}, "node 'a': expected a mapping with a layer: ", ("a",)),
        ({"a": spec(layer="predct")}, "node 'a': unknown layer 'predct': did you mean 'predict'?", ("a", "layer")),
        ({"a": spec(layer=["predict"])}, "node 'a': unknown layer ['predict']", ("a", "layer")),
        ({"a": spec(inputs=[])}, "node 'a' needs inputs", ("a", "inputs")),
        ({"a": spec(inputs="question")}, "node 'a' needs inputs", ("a", "inputs")),
        ({"a": spec(inputs=["a b"])}, "field name 'a b'", ("a", "inputs")),
        ({"a": spec(inputs=[["q"]])}, "field name", ("a", "inputs")),
        ({"a": spec(inputs=["q", "q"])}, "node 'a' reads two fields called 'q'", ("a", "inputs")),
        ({"a": spec(inputs={"q": "c.d"})}, "'c.d' names no node: known here: a", ("a", "inputs")),
        (
            {"plan": spec(), "b": spec(inputs=["pln.plan"])},
            "'pln.plan' names no node: did you mean 'plan'?",
            ("b", "inputs"),
        ),
        (
            {"plan": spec(), "b": spec(inputs=["plan.plans"])},
            "node 'plan' has no output 'plans': did you mean 'plan'?",
            ("b", "inputs"),
        ),
        ({"a": spec(inputs=["b"]), "b": spec(inputs=["a"])}, "nodes read one another in a circle", ()),
        ({"a": spec(inputs=["a"])}, "the name 'a' is used twice", ()),
        ({"a": spec(inputs=["a.a"])}, "nodes read one another in a circle or from nowhere: a", ()),
        (
            {"a": spec(instrction="x")},
            "node 'a': unknown key 'instrction': did you mean 'instruction'?",
            ("a", "instrction"),
        ),
        ({"a": {"layer": "predict", "inputs": ["q"]}}, "node 'a': an instruction is missing", ("a",)),
        ({"a": spec(instruction=5)}, "node 'a': instruction: expected text, found 5", ("a", "instruction")),
        ({"a": spec(outputs="x")}, "node 'a': outputs: expected a list of texts", ("a", "outputs")),
        ({"a": spec(outputs=["x", "x"])}, "node 'a': an output is named twice", ("a", "outputs")),
        (
            {"a": spec(choices=[True, False])},
            "node 'a': choices: expected a list of texts (quote yes",
            ("a", "choices"),
        ),
        ({"a": spec(choices="auto")}, "node 'a': choices: auto needs a task file with train rows", ("a", "choices")),
        ({"a": spec(choices=["x"])}, "node 'a': choices need at least two different labels", ("a", "choices")),
        ({"a": spec(style="chatty")}, "node 'a': style: expected one of chat, plain, found 'chatty'", ("a", "style")),
        (
            {"a": spec(max_tokens=0)},
            "node 'a': max_tokens: expected a number from 1 to 8192, found 0",
            ("a", "max_tokens"),
        ),
        ({"a": spec(max_tokens=1.5)}, "node 'a': max_tokens: expected a whole number, found 1.5", ("a", "max_tokens")),
        ({"a": spec(max_tokens=10**400)}, "node 'a': max_tokens: expected a number, found 1000", ("a", "max_tokens")),
        ({"a": spec(bias=[1])}, "node 'a': bias has no meaning with open text", ("a", "bias")),
        (
            {"a": spec(choices=["x", "y"], bias={"z": 1})},
            "node 'a': bias: bias names 'z', which is no choice here",
            ("a", "bias"),
        ),
        ({"a": spec(demos=[{"inputs": {}}])}, "node 'a': demos: a demo has exactly two mappings", ("a", "demos", 0)),
        (
            {"a": spec(demos=[{"inputs": {"question": "x"}, "outputs": {"a": 5}}])},
            "node 'a': demos: a demo's outputs are texts",
            ("a", "demos", 0),
        ),
    ],
)
def test_a_mistake_in_a_mapping_is_named_with_its_place(
    mapping: dict[str, Any], says: str, path: tuple[str | int, ...]
) -> None:
    said, where = complaint(mapping)
    assert said.startswith(says)
    assert where == path


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["question", "a", "a.a", "predict", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "layer", "inputs"]), inner),
    max_leaves=4,
)


@given(st.sampled_from(["inputs", "nodes", "output"]), JUNK)
def test_junk_in_place_of_a_part_is_refused_or_read_but_never_breaks(part: str, junk: Any) -> None:
    refused_or_read({**two_steps().to_mapping(), part: junk})


@given(
    st.sampled_from(
        [
            "layer",
            "inputs",
            "outputs",
            "instruction",
            "choices",
            "demos",
            "style",
            "bias",
            "temperature",
            "max_tokens",
            "stop",
        ]
    ),
    JUNK,
    st.booleans(),
)
def test_junk_in_place_of_a_setting_is_refused_or_read_but_never_breaks(name: str, junk: Any, closed: bool) -> None:
    refused_or_read({"a": spec(**({"choices": ["x", "y"]} if closed else {}) | {name: junk})})


def refused_or_read(mapping: Mapping[str, Any]) -> None:
    """Reading gives a program that writes itself back, or a `ContentError`."""
    try:
        program = Program.from_mapping(mapping)
    except ContentError:
        return
    assert Program.from_mapping(program.to_mapping()) == program


# ── round trips ──────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
LINES = st.lists(
    st.sampled_from(["a", " b", "c ", "", "#", "- d", ": e", "\t", "\x85", "\u2028", "'", '"', "\\"]), max_size=5
)
ANY_TEXT = TEXT | LINES.map("\n".join)
WORDS = ANY_TEXT.filter(str.strip)


@st.composite
def predicts(draw: st.DrawFn, number: int, inputs: tuple[str, ...]) -> Predict:
    """A Predict with random settings for a node that reads `inputs`."""
    style = draw(st.sampled_from(["chat", "plain"]))
    closed = draw(st.booleans())
    outputs = (f"out{number}",) if closed or draw(st.booleans()) else (f"why{number}", f"out{number}")
    fields = dict.fromkeys(inputs, ANY_TEXT), dict.fromkeys(outputs, ANY_TEXT)
    demos = st.builds(Demo, st.fixed_dictionaries(fields[0]), st.fixed_dictionaries(fields[1]))
    common: dict[str, Any] = {
        "output": outputs,
        "demos": tuple(draw(st.lists(demos, max_size=2))),
        "style": style,
        "stop": tuple(draw(st.lists(ANY_TEXT, max_size=2))),
    }
    if not closed:
        temperature = st.floats(0, 2) | st.integers(0, 2)
        return Predict(draw(WORDS), **common, temperature=draw(temperature), max_tokens=draw(st.integers(1, 8192)))
    choices = tuple(draw(st.lists(WORDS, min_size=2, max_size=3, unique=True)))
    term = st.floats(-1e6, 1e6) | st.integers(-9, 9)
    bias = draw(st.just(()) | st.tuples(*[term] * len(choices)))
    return Predict(draw(WORDS), **common, choices=choices, bias=bias, list_choices=draw(st.sampled_from(["yes", "no"])))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A random small DAG of Predict nodes with random parameter values."""
    symbols: list[Symbol] = [Input("question"), Input("context")]
    for number in range(draw(st.integers(1, 4))):
        read = draw(st.lists(st.sampled_from(symbols), min_size=1, max_size=3, unique_by=lambda symbol: symbol.field))
        layer = draw(predicts(number, tuple(symbol.field for symbol in read)))
        last = layer(*read, name=f"node{number}")
        symbols += [replace(last, field=name) for name in layer.outputs]
    return Program(symbols[-1])


@given(programs())
def test_a_program_reads_back_equal_from_its_mapping(program: Program) -> None:
    again = Program.from_mapping(program.to_mapping())
    assert again == program
    assert again.to_mapping() == program.to_mapping()
    assert again.fingerprint == program.fingerprint


@given(programs())
def test_a_program_reads_back_equal_from_its_file(tmp_path: Path, program: Program) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    SavedProgram("n", "m", "", program).save(one)
    loaded = load_saved(one)
    assert loaded.program == program
    assert loaded.program.fingerprint == program.fingerprint
    loaded.save(two)
    assert one.read_bytes() == two.read_bytes()


@given(programs(), st.data())
def test_any_edit_changes_the_fingerprint_and_the_edit_back_restores_it(program: Program, data: st.DataObject) -> None:
    texts = {name: value for name, value in program.parameters.items() if isinstance(value, Text)}
    name = data.draw(st.sampled_from(sorted(texts)))
    edited = program.replace({name: texts[name].value + "!"})
    assert edited.fingerprint != program.fingerprint
    assert edited.replace({name: texts[name].value}) == program
    assert edited.replace({name: texts[name].value}).fingerprint == program.fingerprint


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Predict("x", temperature=1), Predict("x", temperature=1.0)),
        (Predict("x", temperature=-0.0), Predict("x")),
        (Predict("x", choices=["a", "b"], bias=[0, -0.0]), Predict("x", choices=("a", "b"), bias=(0.0, 0.0))),  # type: ignore[arg-type]
        (Predict("x", output="answer", stop="."), Predict("x", output=("answer",), stop=(".",))),  # type: ignore[arg-type]
        (
            Predict("x", demos=(Demo({"q": "1", "r": "2"}, {"answer": "3"}),)),
            Predict("x", demos=(Demo({"r": "2", "q": "1"}, {"answer": "3"}),)),
        ),
    ],
)
def test_two_ways_of_writing_one_value_make_one_program(one: Predict, two: Predict) -> None:
    programs = [Program(layer(Input("q"), Input("r"))) for layer in (one, two)]
    assert programs[0] == programs[1]
    assert programs[0].fingerprint == programs[1].fingerprint
    assert Program.from_mapping(programs[0].to_mapping()).fingerprint == programs[0].fingerprint


# ── parameters and edits ─────────────────────────────────────────────────────────────────────────


def test_parameters_are_named_by_node_and_kind() -> None:
    assert {name: type(value) for name, value in chooser().parameters.items()} == {
        "kind.instruction": Text,
        "kind.demos": Demos,
        "kind.style": Choice,
        "kind.nearest": Number,
        "kind.list_choices": Choice,
        "kind.bias": Bias,
    }
    assert {name: type(value) for name, value in two_steps().parameters.items() if name.startswith("plan.")} == {
        "plan.instruction": Text,
        "plan.demos": Demos,
        "plan.style": Choice,
        "plan.nearest": Number,
        "plan.temperature": Number,
        "plan.max_tokens": Number,
    }


GOOD_DEMO = {"inputs": {"question": "1"}, "outputs": {"kind": "a"}}


@pytest.mark.parametrize(
    ("name", "given_value", "kept"),
    [
        ("kind.instruction", "New words.", "New words."),
        ("kind.style", "plain", "plain"),
        ("kind.list_choices", "no", "no"),
        ("kind.bias", [1, 2, 3], (1.0, 2.0, 3.0)),
        ("kind.bias", {"b": 2}, (0.0, 2.0, 0.0)),
        ("kind.bias", (), ()),
        ("kind.demos", [GOOD_DEMO], (Demo({"question": "1"}, {"kind": "a"}),)),
        ("kind.demos", (), ()),
    ],
)
def test_an_edit_puts_the_checked_value_in(name: str, given_value: object, kept: object) -> None:
    program = chooser().replace({name: given_value})
    assert program.parameters[name].value == kept


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("kind.instruction", "", "expected text, found ''"),
        ("kind.instruction", " \n", "expected text"),
        ("kind.instruction", 5, "expected text, found 5"),
        ("kind.instruction", "x" * 4001, "text of 4001 characters; at most 4000 here"),
        ("kind.style", "prose", "expected one of chat, plain, found 'prose'"),
        ("kind.style", None, "expected one of chat, plain, found None"),
        ("kind.list_choices", True, "expected one of yes, no, found True"),
        ("kind.bias", [1, 2], "expected 3 numbers, one per choice, found 2"),
        ("kind.bias", [1, 2, True], "expected finite numbers"),
        ("kind.bias", [1, 2, float("nan")], "expected finite numbers"),
        ("kind.bias", [1, 2, 10**400], "expected finite numbers"),
        ("kind.bias", "abc", "expected one number per choice, found 'abc'"),
        ("kind.bias", 3.0, "expected one number per choice, found 3.0"),
        ("kind.bias", {"d": 1.0}, "bias names 'd', which is no choice here"),
        ("kind.demos", "text", "expected a list of demos, found 'text'"),
        ("kind.demos", [5], "expected a demo, found 5"),
        ("kind.demos", [GOOD_DEMO | {"more": {}}], "a demo has exactly two mappings: inputs and outputs"),
        ("kind.demos", [GOOD_DEMO | {"inputs": {}}], "a demo's inputs are question, found none"),
        ("kind.demos", [GOOD_DEMO | {"outputs": {"other": "x"}}], "a demo's outputs are kind, found other"),
        ("kind.demos", [GOOD_DEMO | {"inputs": {"question": 1}}], "a demo's inputs are texts"),
        ("kind.bais", (), "no parameter 'kind.bais': did you mean 'kind.bias'?"),
        ("kind", "x", "no parameter 'kind'"),
    ],
)
def test_an_edit_that_a_parameter_cannot_take_is_refused_by_name(name: str, value: object, says: str) -> None:
    with pytest.raises(ContentError) as caught:
        chooser().replace({name: value})
    said = str(caught.value)
    assert said.startswith(says if says.startswith("no parameter") else f"{name}: {says}")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("answer.temperature", -0.1, "expected a number from 0 to 2, found -0.1"),
        ("answer.temperature", float("inf"), "expected a number, found inf"),
        ("answer.temperature", "1", "expected a number, found '1'"),
        ("answer.temperature", True, "expected a number, found True"),
        ("answer.max_tokens", 8193, "expected a number from 1 to 8192, found 8193"),
        ("answer.max_tokens", 2.5, "expected a whole number, found 2.5"),
        ("answer.max_tokens", None, "expected a number, found None"),
    ],
)
def test_a_number_outside_its_limits_is_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ContentError) as caught:
        two_steps().replace({name: value})
    assert str(caught.value) == f"{name}: {says}"


def test_one_bad_edit_among_good_ones_changes_nothing() -> None:
    program = chooser()
    before = program.to_mapping()
    with pytest.raises(ContentError):
        program.replace({"kind.style": "plain", "kind.bias": [1]})
    assert program.to_mapping() == before


def test_an_edit_leaves_the_program_it_came_from_and_the_other_nodes_as_they_were() -> None:
    program = two_steps()
    before = program.fingerprint
    edited = program.replace({"plan.instruction": "Think.", "plan.max_tokens": 5})
    assert (program.fingerprint, edited.node("answer")) == (before, program.node("answer"))
    assert program.parameters["plan.instruction"].value == "Plan."
    assert edited.parameters["plan.max_tokens"].value == 5
    assert program.replace({}) == program


def test_nothing_in_a_program_can_be_assigned() -> None:
    program = chooser()
    for thing, name in ((program, "output"), (program.nodes[0], "name"), (program.nodes[0].layer, "instruction")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, "x")


def test_a_demo_taken_in_does_not_change_with_the_mapping_it_was_given_as() -> None:
    inputs = {"question": "1"}
    for demo in ({"inputs": inputs, "outputs": {"kind": "a"}}, Demo(inputs, {"kind": "a"})):
        program = chooser().replace({"kind.demos": [demo]})
        before = program.fingerprint
        inputs["question"] = "changed"
        assert program.fingerprint == before
        inputs["question"] = "1"


def test_an_unknown_node_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ContentError, match="no node 'plam': did you mean 'plan'"):
        two_steps().node("plam")


# ── calling ──────────────────────────────────────────────────────────────────────────────────────


def test_a_program_without_a_model_says_how_to_get_one() -> None:
    with pytest.raises(ContentError, match=r"no model to run on: bind it to one with engine\.bind\(program, runtime\)"):
        two_steps()(question="x")


def test_a_bound_program_runs_every_node_on_what_it_reads(scripted_runtime: Callable[..., Any]) -> None:
    def script(request: Request, prompt: str) -> str:
        return "my plan" if "Plan." in prompt else f"saw plan: {'my plan' in prompt}"

    program = two_steps()
    bound = bind(program, scripted_runtime(script))
    prediction = bound(question="x")
    assert prediction.text == "saw plan: True"
    assert prediction.outputs == {"plan.plan": "my plan", "answer.answer": "saw plan: True"}
    assert bound == program
    assert bound.replace({"plan.style": "plain"})(question="x").text == "saw plan: True"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "input 'question' is missing: the program reads question"),
        ({"qestion": "x"}, "the program has no input 'qestion': did you mean 'question'?"),
        ({"question": "x", "extra": "y"}, "the program has no input 'extra': known here: question"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    scripted_runtime: Callable[..., Any], inputs: dict[str, str], says: str
) -> None:
    with pytest.raises(ContentError) as caught:
        bind(two_steps(), scripted_runtime())(**inputs)
    assert str(caught.value) == says


# ── the program section of a task ────────────────────────────────────────────────────────────────


def declared(path: Path) -> Program:
    task = load_task(path)
    return declared_program(task, load_splits(task))


def test_choices_auto_are_the_labels_of_the_train_file(make_task: TaskMaker) -> None:
    full = {"nodes": {"kind": spec(choices="auto")}, "inputs": ["question"]}
    for program in (declared(make_task()), declared(make_task(program=full))):
        layer = program.output_node.layer
        assert isinstance(layer, Predict)
        assert layer.choices == ("person", "place")


@pytest.mark.parametrize(
    ("program", "path", "says"),
    [
        ({"kind": spec(choics=["a"])}, ("kind", "choics"), "unknown key 'choics': did you mean 'choices'?"),
        ({"kind": spec(layer="x")}, ("kind", "layer"), "unknown layer 'x': known here: "),
        ({"kind": spec(inputs=["query"])}, (), "the program reads 'query', but data.inputs gives question"),
        (
            {"nodes": {"kind": spec(max_tokens=0)}, "inputs": ["question"]},
            ("nodes", "kind", "max_tokens"),
            "max_tokens: ",
        ),
        ({"nodes": 5}, ("nodes",), "a program needs at least one node"),
        (
            {"kind": spec(demos=[{"inputs": {"question": "1"}, "outputs": {"kind": "a"}}, 5])},
            ("kind", "demos", 1),
            "demos: expected a demo, found 5",
        ),
    ],
)
def test_a_mistake_in_the_program_of_a_task_is_named_by_file_and_line(
    make_task: TaskMaker, program: dict[str, Any], path: tuple[str | int, ...], says: str
) -> None:
    file = make_task(program=program)
    with pytest.raises(ContentError) as caught:
        declared(file)
    line = load_task(file).lines[("program", *path)]
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("full", [False, True])
def test_choices_auto_need_two_labels(make_task: TaskMaker, full: bool) -> None:
    rows = [{"question": f"q{n}", "label": "only"} for n in range(4)]
    nodes = {"kind": spec(choices="auto")}
    file = make_task(rows, program={"inputs": ["question"], "nodes": nodes} if full else nodes)
    with pytest.raises(ContentError, match="found 1 labels in train") as caught:
        declared(file)
    place = ("program", *(("nodes",) if full else ()), "kind", "choices")
    assert str(caught.value).startswith(f"{file}:{load_task(file).lines[place]}: ")


def test_a_label_outside_the_listed_choices_is_named_by_its_row(make_task: TaskMaker) -> None:
    file = make_task(program={"kind": spec(choices=["person", "thing"])})
    with pytest.raises(ContentError) as caught:
        declared(file)
    assert str(caught.value) == f"{file.parent}/train.jsonl:2: label 'place' is not in choices: person, thing"


def test_asking_for_the_winner_alone_is_a_setting_that_round_trips() -> None:
    layer = Predict("Sort.", output="kind", choices=("a", "b"), scores="winner")
    program = Program(layer(Input("text")))
    assert program.to_mapping()["nodes"]["kind"]["scores"] == "winner"
    again = Program.from_mapping(program.to_mapping())
    assert again == program
    assert again.fingerprint != Program(replace(layer, scores="all")(Input("text"))).fingerprint
    with pytest.raises(ContentError, match="expected all or winner, found 'best'"):
        Predict("Sort.", output="kind", choices=("a", "b"), scores=cast(Any, "best"))
    with pytest.raises(ContentError, match="no meaning with open text"):
        Predict("Write.", output="kind", scores="winner")
