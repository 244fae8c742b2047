"""Sizes by hand and against what executions ask for; and which nodes are dead, against brute force."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_library import made
from support_static import found, part, predict, rows, subject

from engine.feedback.static.measuring import measured
from engine.feedback.static.reach import dead_nodes, live_nodes
from engine.feedback.static.sizes import Size, estimated
from engine.feedback.static.subject import Subject
from engine.flows import Flow
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend, keyword_script
from engine.inference.service import Service
from engine.opening import open_runtime
from engine.program.graph import Program
from engine.program.layer import Layer, LayerResult, Node
from engine.program.layers import Predict
from engine.program.library import ARCHITECTURES
from engine.program.typed.grammar import (
    DIGIT,
    Either,
    Exactly,
    Pattern,
    Repeat,
    Then,
    can_be_empty,
    longest,
    matches,
    shortest,
)
from engine.records import Example, Generate, Request, Role
from engine.sandbox.service import SandboxService
from engine.store.store import Store
from engine.tasks.metrics import METRICS
from engine.tasks.schema import RuntimeSettings


def counted(given: Subject) -> dict[str, Size]:
    """Sizes in words, as the scripted backend counts."""
    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        return {size.place: size for size in runtime.run(measured(given))}


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────


def test_the_parts_of_a_request_are_counted_apart() -> None:
    """Turns in words: `<system> Answer it. <user> Question: … <assistant>`; a demo is two turns more."""
    demo = {"inputs": {"question": "one two"}, "outputs": {"answer": "three four five"}}
    given = subject({"answer": predict(demos=[demo], max_tokens=7)}, ("a b c", "d"), ())
    train = (*given.train, Example("long", {"question": "w " * 20}, ("e",), "rows:9"))
    size = counted(Subject(given.program, train))["answer"]
    assert (size.fixed, size.demos) == (6, 1 + 3 + 1 + 3)
    assert (size.rows, size.longest, size.row) == (round((4 + 4 + 20) / 3), 20, "rows:9")
    assert (size.reply, size.needed, size.wanted, size.wanted_row) == (7, 0, 3, "train.jsonl:1")
    assert (size.others, size.sure, size.worst) == (0, 6 + 8 + 20 + 7, 6 + 8 + 20 + 7)


def test_choices_are_listed_and_the_longest_is_the_reply() -> None:
    size = counted(subject({"answer": predict(choices=["a", "b c d"])}, ("a",), ("a",)))["answer"]
    assert (size.fixed, size.reply, size.wanted) == (6 + 8, 3, 0)  # Answer with one of: a, b c d.


def test_what_other_nodes_write_counts_at_its_most() -> None:
    look = {"layer": "retrieve", "inputs": ["question"], "index": "kb", "k": 3}
    nodes = {
        "passages": look,
        "plan": {**predict(max_tokens=40), "inputs": ["passages", "question"]},
        "answer": {**predict(max_tokens=5), "inputs": ["plan", "passages", "question"]},
    }
    sizes = counted(subject(nodes, ("a",), ("a",)))
    assert (sizes["plan"].others, sizes["answer"].others) == (3 * 256, 40 + 3 * 256)
    assert "passages" not in sizes, "no model is asked"


def test_parts_read_what_their_layer_hands_them() -> None:
    steps = {"reason": part(outputs=["reasoning"], max_tokens=30), "say": part(outputs=["answer"])}
    thoughts = {"propose": part(temperature=0.8, max_tokens=20), "answer": part()}
    checked = {"of": part(max_tokens=50), "check": part(outputs=["verdict"]), "max_tokens": 90}
    sizes = counted(
        subject(
            {
                "one": {"layer": "sequential", "inputs": ["question"], "steps": steps},
                "two": {"layer": "tree_search", "inputs": ["question"], "depth": 3, **thoughts},
                "answer": {"layer": "refine", "inputs": ["one", "two"], **checked},
            },
            ("a",),
            ("a",),
        )
    )
    assert (sizes["one.steps.reason"].others, sizes["one.steps.say"].others) == (0, 30)
    assert sizes["two.answer"].others == 3 * 20
    assert (sizes["answer.of"].others, sizes["answer.check"].others) == (64 + 64, 64 + 64 + 90)
    assert sizes["answer"].by == "estimate", "its critic reads more than its parts do"
    assert "one" not in sizes, "a sequence asks nothing itself"


def test_of_a_pool_the_longest_demonstrations_are_shown() -> None:
    demos = [{"inputs": {"question": "x " * many}, "outputs": {"answer": "y"}} for many in (1, 9, 5)]
    size = counted(subject({"answer": predict(demos=demos, nearest=2)}, ("y",), ("y",)))["answer"]
    assert size.demos == (1 + 1 + 9 + 1 + 1) + (1 + 1 + 5 + 1 + 1)


def test_without_a_model_four_characters_are_a_token() -> None:
    given = subject({"answer": predict(instruction="x" * 40, max_tokens=7)}, ("y" * 41,), ())
    (size,) = estimated(measured(given))
    head = len("x" * 40 + "\n" + "Question: " + "\n")
    assert size.fixed == -(-head // 4)
    assert (size.reply, size.wanted) == (7, 11)


def test_a_layer_that_says_nothing_of_its_cost_is_named() -> None:
    class Silent(Layer):
        output = "answer"

        def flow(self, inputs: object) -> Flow[LayerResult]:
            yield from ()
            return LayerResult({"answer": ""})

    program = Program.assemble(("question",), [Node("answer", Silent(), {"question": "question"})], "answer.answer")
    assert [(size.place, size.by) for size in estimated(measured(Subject(program, rows(("a",)))))] == [
        ("answer", "none")
    ]


# ── against executions ───────────────────────────────────────────────────────────────────────────


WITHIN = [name for name in ARCHITECTURES if not made(name).outside and name != "tool_call"]


@pytest.mark.parametrize("name", WITHIN)
def test_no_execution_of_an_architecture_asks_for_more_than_was_said(name: str, tmp_path: Path) -> None:
    """In words, replies as long as they may be."""
    asked: list[int] = []

    def script(request: Request, prompt: str) -> Answer:
        asked.append(len(prompt.split()))
        return "word " * request.max_tokens if isinstance(request, Generate) else keyword_script(request, prompt)

    given = Subject(made(name), tuple(Example(f"e{n}", {"question": "why " * n}, ("x",)) for n in range(1, 30)))
    services: Mapping[Role, Service] = {"sandbox": SandboxService(tmp_path)}
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), services) as runtime:
        sizes = runtime.run(measured(given))
        runtime.run(forward(given.program, given.train[-2:]))
    assert asked
    assert max(asked) <= max(size.worst for size in sizes)


@pytest.mark.model
def test_what_is_said_to_fail_fails_and_what_is_said_to_fit_fits() -> None:
    short, long = Example("s", {"question": "Why?"}, ("a",)), Example("l", {"question": "why " * 700}, ("a",))
    program = Program.from_mapping({"answer": predict(max_tokens=8)})
    with open_runtime("smollm2-135m", store=":memory:", settings=RuntimeSettings(context=512)) as runtime:
        context = runtime.backend("task").context
        for example in (short, long):
            (size,) = runtime.run(measured(Subject(program, (example,))))
            (trace,) = runtime.run(forward(program, [example]))
            assert (size.sure > context) == (trace.prediction.error is not None)
        assert context == 512
        stopped = Predict("Answer it.", ("why", "answer"), stop=("\n",), max_tokens=40)
        capped = Predict("Answer it.", {"why": "text", "answer": "bool"}, max_tokens=3)
        unknown = {"layer": "tool_call", "inputs": ["question"], "functions": "tools"}
        nodes = [{"layer": "predict", "inputs": ["question"], **layer.to_mapping()} for layer in (stopped, capped)]
        for node in (*nodes, unknown):
            bad = Program.from_mapping({"answer": node})
            (trace,) = runtime.run(forward(bad, [short]))
            assert trace.prediction.error is not None, node


# ── against brute force ──────────────────────────────────────────────────────────────────────────


@st.composite
def graphs(draw: st.DrawFn) -> Program:
    """Small graphs of nodes with one to three fields, which read any fields before them; any field is the answer."""
    references = ["a", "b"]
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 7))):
        fields = [f"f{index}" for index in range(draw(st.integers(1, 3)))]
        read = draw(st.lists(st.sampled_from(references), min_size=1, max_size=3, unique=True))
        nodes.append(Node(f"n{number}", Predict("Go on.", tuple(fields)), {f"i{at}": r for at, r in enumerate(read)}))
        references += [f"n{number}.{field}" for field in fields]
    output = draw(st.sampled_from(references[2:]))
    return Program.assemble(("a", "b"), draw(st.permutations(nodes)), output)


def depends_on(program: Program) -> set[str]:
    """The nodes on some path to the answer, every path walked forward from every node."""

    def reaches(name: str) -> bool:
        readers = [n.name for n in program.nodes if any(s.startswith(f"{name}.") for s in n.sources.values())]
        return name == program.output.split(".")[0] or any(map(reaches, readers))

    return {node.name for node in program.nodes if reaches(node.name)}


@given(graphs())
def test_dead_nodes_are_those_from_which_no_path_leads_to_the_answer(program: Program) -> None:
    wanted = depends_on(program)
    assert {node.name for node in live_nodes(program)} == wanted
    dead = [finding.place for finding in dead_nodes(Subject(program, ()))]
    assert set(dead) == {node.name for node in program.nodes} - wanted
    assert len(dead) == len(set(dead))
    kept = Program.assemble(program.inputs, live_nodes(program), program.output)
    assert list(dead_nodes(Subject(kept, ()))) == [], "without them the program is whole, and nothing is dead"


@given(graphs(), st.lists(st.text("ab ", max_size=9), max_size=4))
def test_every_finding_is_about_something_that_is_there(program: Program, targets: list[str]) -> None:
    train = [Example(f"e{n}", {"a": target, "b": "b"}, (target,)) for n, target in enumerate(targets)]
    there = {*(node.name for node in program.nodes), "inputs", "data", "metric"}
    for finding in found(Subject(program, tuple(train), tuple(train[:2]), METRICS["exact_match"])):
        assert finding.place.split(".")[0] in there
        assert finding.text
        assert finding.advice


PATTERNS: st.SearchStrategy[Pattern] = st.recursive(
    st.sampled_from(["", "a", "bc"]).map(Exactly) | st.just(DIGIT),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Then(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Either(tuple(parts))),
        st.tuples(inner.filter(lambda item: not can_be_empty(item)), st.integers(0, 2), st.integers(0, 2)).map(
            lambda drawn: Repeat(drawn[0], drawn[1], drawn[1] + drawn[2])
        ),
    ),
    max_leaves=6,
)


def lengths(pattern: Pattern) -> set[int]:
    """The lengths of all texts that a pattern describes, worked out one by one."""

    def sums(parts: Sequence[set[int]]) -> set[int]:
        found = {0}
        for sizes in parts:
            found = {one + other for one in found for other in sizes}
        return found

    match pattern:
        case Exactly(text):
            return {len(text)}
        case Then(parts):
            return sums([lengths(part) for part in parts])
        case Either(options):
            return {length for option in options for length in lengths(option)}
        case Repeat(item, low, high):
            return {length for times in range(low, (high or 0) + 1) for length in sums([lengths(item)] * times)}
        case _:
            return {1}


@given(PATTERNS)
def test_the_shortest_and_the_longest_text_of_a_pattern(pattern: Pattern) -> None:
    known = lengths(pattern)
    assert matches(pattern, shortest(pattern))
    assert (len(shortest(pattern)), longest(pattern)) == (min(known), max(known))
    assert longest(Then((pattern, Repeat(DIGIT, 1)))) is None
