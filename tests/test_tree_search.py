"""TreeSearch: what is drawn, judged and kept, against a search worked by hand and one written plainly."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_layers import Script, done, gradients, round_trip

import engine
from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import Input, perform
from engine.program.layers import Predict, TreeSearch
from engine.program.preference import Judged, rightness
from engine.records import Chat, Completion, Generate, Plain, Request, Score, Step

PROPOSE = Predict("Think on.", output="thought", temperature=0.8)
SEARCH = TreeSearch(PROPOSE, Predict("Answer it."), depth=2, branch=2, beam=1)
QUESTION = "Do these thoughts lead to a right answer?"


def thoughts_in(request: Generate | Score) -> str:
    """What a prompt shows as the thoughts so far."""
    shown = request.prompt.messages[-1].text if isinstance(request.prompt, Chat) else request.prompt.text
    return shown.split("Thoughts: ", 1)[1].removesuffix("\nVerdict:").removesuffix("\nThought:")


def script(tree: Mapping[str, tuple[str, ...]], values: Mapping[str, float], answer: Any = "41") -> Script:
    """Draw number n of a state is the n-th of its thoughts; a state's log-odds are those of its last thought."""

    def propose(request: Generate) -> str:
        return tree.get(thoughts_in(request), ("",) * 9)[request.sample - 1]

    def judge(request: Score) -> list[float]:
        return [values[thoughts_in(request).splitlines()[-1]] - 9.0, -9.0]

    return Script({"Think on.": propose, QUESTION: judge, "Answer it.": answer})


TREE = {"": ("add", "divide"), "divide": ("by two", "by three"), "add": ("one", "two")}
VALUES = {"add": -1.0, "divide": 1.0, "by two": 0.5, "by three": 2.0, "one": 3.0, "two": 0.0}


def names(step: Step) -> list[tuple[str, str, float | None]]:
    return [(inner.node, inner.outputs.get("thought", "-"), inner.value) for inner in step.steps[:-1]]


def test_beam_continues_the_best_of_each_level_and_answers_from_the_best_of_the_last() -> None:
    step = done(SEARCH, script(TREE, VALUES), question="Q")
    assert names(step) == [
        ("propose 1.1", "add", -1.0),
        ("propose 1.2", "divide", 1.0),
        ("propose 2.1", "by two", 0.5),
        ("propose 2.2", "by three", 2.0),
    ]
    assert step.steps[-1].node == "answer"
    assert step.steps[-1].inputs == {"question": "Q", "thoughts": "divide\nby three"}
    assert (step.outputs, step.value) == ({"answer": "41"}, 2.0)
    assert [len(inner.calls) for inner in step.steps] == [2, 2, 2, 2, 1], "a judgement stands with its thought"
    assert step.calls == ()


def test_a_wider_beam_finds_what_a_narrow_one_cannot_see() -> None:
    wide = TreeSearch(PROPOSE, Predict("Answer it."), depth=2, branch=2, beam=2)
    step = done(wide, script(TREE, VALUES), question="Q")
    assert step.steps[-1].inputs["thoughts"] == "add\none"
    places = [(inner.node, inner.inputs["thoughts"]) for inner in step.steps[2:-1]]
    assert places == [(f"propose 2.{place}", parent) for place, parent in enumerate(["divide", "add"] * 2, 1)]


def test_best_first_continues_the_best_open_state_of_any_level() -> None:
    values = {**VALUES, "by two": -3.0, "by three": -2.0}
    deep = {**TREE, "add\none": ("three", "four")}
    values |= {"three": 5.0, "four": 4.0}
    search = TreeSearch(PROPOSE, Predict("Answer it."), depth=3, branch=2, strategy="best_first")
    step = done(search, script(deep, values), question="Q")
    assert [(inner.node, inner.inputs["thoughts"]) for inner in step.steps[:-1:2]] == [
        ("propose 1.1", ""),
        ("propose 2.1", "divide"),
        ("propose 2.3", "add"),
        ("propose 3.1", "add\none"),
    ]
    assert step.steps[-1].inputs["thoughts"] == "add\none\nthree"
    bounded = TreeSearch(PROPOSE, Predict("Answer it."), depth=3, branch=2, strategy="best_first", nodes=4)
    step = done(bounded, script(deep, values), question="Q")
    assert len(step.steps) == 5
    assert step.steps[-1].inputs["thoughts"] == "add", "the best open state, though a deeper one was tried"


def test_of_equal_values_the_first_made_is_kept() -> None:
    for strategy in ("beam", "best_first"):
        search = TreeSearch(PROPOSE, Predict("Answer it."), depth=2, branch=2, beam=1, strategy=strategy)
        step = done(search, script(TREE, dict.fromkeys(VALUES, 0.0)), question="Q")
        expected = "add\none" if strategy == "beam" else "add"
        assert step.steps[-1].inputs["thoughts"].startswith(expected)


def test_what_repeats_or_says_nothing_is_dropped_unjudged() -> None:
    tree = {"": ("add", " ADD "), "add": ("Add", "")}
    step = done(SEARCH, script(tree, VALUES), question="Q")
    assert [value for _, _, value in names(step)] == [-1.0, None, None, None]
    assert step.steps[-1].inputs["thoughts"] == "add", "the best so far"
    assert [len(inner.calls) for inner in step.steps] == [2, 1, 1, 1, 1]


def test_without_any_thought_the_answer_is_given_all_the_same() -> None:
    for strategy in ("beam", "best_first"):
        search = TreeSearch(PROPOSE, Predict("Answer it."), strategy=strategy)
        asked = script({}, VALUES)
        step = done(search, asked, question="Q")
        assert step.steps[-1].inputs == {"question": "Q", "thoughts": ""}
        assert (step.outputs, step.value) == ({"answer": "41"}, None)
        found = gradients(search, step, asked, "question")
        assert list(found.parameters) == ["answer.instruction"], "no thought and no judge is to blame"


def test_failed_proposals_are_dropped_and_a_failed_answer_fails_the_whole() -> None:
    numbers = Predict("Think on.", output={"thought": "int"}, temperature=0.8)
    search = TreeSearch(numbers, Predict("Answer it.", output={"answer": "int"}), depth=1, branch=2)
    step = done(search, script({"": ("many", "7")}, {"7": 1.0}, answer="none"), question="Q")
    assert step.steps[0].error == "unparsed: thought: expected a whole number, found 'many'"
    assert step.steps[-1].inputs["thoughts"] == "7"
    assert step.error == "answer: unparsed: answer: expected a whole number, found 'none'"


def test_when_every_open_state_leads_nowhere_the_best_of_them_is_answered_from() -> None:
    search = TreeSearch(PROPOSE, Predict("Answer it."), depth=2, branch=2, strategy="best_first")
    step = done(search, script({"": ("add", "divide")}, VALUES), question="Q")
    assert step.steps[-1].inputs["thoughts"] == "divide"
    assert len(step.steps) == 7, "both were tried"


def test_a_state_that_cannot_be_judged_is_dropped() -> None:
    flow = SEARCH.flow({"question": "Q"})
    level: Any = flow.send(None)
    drawn = [finished(inner, Completion("k", text=f"thought {number}")) for number, inner in enumerate(level.flows)]
    judged: Any = flow.send(drawn)
    values = [finished(inner, Completion("k", error="too long")) for inner in judged.flows]
    assert values == [Judged(error="too long")] * 2
    asked: Any = flow.send(values)
    assert isinstance(asked, Generate)
    assert thoughts_in(asked) == ""


def finished(flow: Any, completion: Completion) -> Any:
    """The result of a flow that asks once."""
    flow.send(None)
    with pytest.raises(StopIteration) as stop:
        flow.send(completion)
    return stop.value.value


def test_a_whole_level_is_drawn_at_once_and_then_judged_at_once() -> None:
    flow = TreeSearch(PROPOSE, Predict("Answer it."), depth=1, branch=3).flow({"question": "Q"})
    level: Any = flow.send(None)
    requests = [next(inner) for inner in level.flows]
    assert [request.sample for request in requests] == [1, 2, 3], "independent draws"
    assert {type(request) for request in requests} == {Generate}
    drawn = []
    for number, inner in enumerate(level.flows):
        with pytest.raises(StopIteration) as stop:
            inner.send(Completion("k", text=f"thought {number}"))
        drawn.append(stop.value.value)
    judged: Any = flow.send(drawn)
    scores = [next(inner) for inner in judged.flows]
    assert {type(request) for request in scores} == {Score}
    assert {request.continuations for request in scores} == {("yes", "no")}
    assert len({request.prompt.messages[0] for request in scores}) == 1, "they share their beginning"


def test_plain_judgements_go_on_after_a_colon() -> None:
    flow = rightness({"question": "Q", "thoughts": "add\none"}, QUESTION, chat=False)
    request: Any = next(flow)
    assert request.prompt == Plain(f"{QUESTION}\n\nQuestion: Q\nThoughts: add\none\nVerdict:")
    assert (request.continuations, request.end) == ((" yes", " no"), "\n")


def test_backward_goes_along_the_line_and_to_the_judge() -> None:
    asked = script(TREE, VALUES)
    found = gradients(SEARCH, done(SEARCH, asked, question="Q"), asked, "question")
    assert found.parameters == {
        "answer.instruction": ["change instruction"],
        "value": ["change instruction"],
        "propose.instruction": ["change instruction", "change instruction"],
    }
    assert found.inputs == {"question": ["change question"] * 3}
    line = "Thoughts: divide\nby three\n"
    judged = "These thoughts were preferred to others, and of the answer was said: It was wrong."
    shown = [text.partition("In one sentence, ") for text in asked.asked]
    given = f"Question: Q\n{line}"
    answer = f"Instruction: Answer it.\n{given}Answer: 41\nMistake: It was wrong.\n"
    last = "Instruction: Think on.\nQuestion: Q\nThoughts: divide\nThought: by three\nMistake: change thoughts\n"
    first = "Instruction: Think on.\nQuestion: Q\nThoughts: \nThought: divide\nMistake: change thoughts\n"
    judge = f"Instruction: {QUESTION}\n{given}Verdict: yes\nMistake: {judged}\n"
    about = [(before, after.split("say how the ")[1].split(" should")[0]) for before, _, after in shown]
    assert sorted(about[:4]) == sorted(
        [(answer, "instruction"), (answer, "question"), (answer, "thoughts"), (judge, "instruction")]
    )
    assert about[4:] == [
        (last, "instruction"),
        (last, "question"),
        (last, "thoughts"),
        (first, "instruction"),
        (first, "question"),
    ]


def test_a_search_goes_on_from_thoughts_that_it_is_given() -> None:
    search = TreeSearch(PROPOSE, Predict("Answer it."), depth=1, branch=2)
    program = Program(search(Input("question"), Predict("Begin.", output="thoughts")(Input("question"))))
    assert program.node("answer").parameters()["propose.demos"].inputs == ("question", "thoughts")
    asked = script(TREE, VALUES)
    step = done(search, asked, question="Q", thoughts="divide")
    assert step.steps[-1].inputs["thoughts"] == "divide\nby three"
    assert step.steps[0].node == "propose 1.1"
    found = gradients(search, step, asked, "thoughts")
    assert found.inputs == {"thoughts": ["change thoughts"]}, "of the first proposal, which read them"


def hashed(request: Request, low: int, high: int) -> int:
    shown = repr(request).encode()
    return low + int.from_bytes(hashlib.blake2b(shown, digest_size=4).digest(), "big") % (high - low + 1)


def random_script(seed: int) -> Script:
    """Thoughts and values from a hash, of few kinds, so that there are repetitions, ties and empty thoughts."""

    def propose(request: Generate) -> str:
        kind = hashed(request, 0, 7 + seed)
        return "" if kind == 0 else f"thought {kind}"

    def judge(request: Score) -> list[float]:
        return [float(hashed(request, -3 - seed, 3)), 0.0]

    return Script({"Think on.": propose, QUESTION: judge, "Answer it.": "41"})


SMALL = st.integers(1, 3)


@given(SMALL, SMALL, SMALL, st.integers(1, 14), st.integers(0, 5))
def test_beam_keeps_the_best_of_each_level_within_its_bound(
    depth: int, branch: int, width: int, nodes: int, seed: int
) -> None:
    search = TreeSearch(PROPOSE, Predict("Answer it."), depth, branch, width, "beam", nodes)
    step = done(search, random_script(seed), question="Q")
    assert done(search, random_script(seed), question="Q") == step
    kept, drawn = [""], 0
    proposals, best = list(step.steps[:-1]), ""
    for level in range(1, depth + 1):
        mine = [inner for inner in proposals if inner.node.startswith(f"propose {level}.")]
        assert [inner.inputs["thoughts"] for inner in mine] == (kept * branch)[: nodes - drawn]
        drawn += len(mine)
        judged = [inner for inner in mine if inner.value is not None]
        if not judged:
            break
        order = sorted(judged, key=lambda inner: -(inner.value or 0.0))
        kept = [f"{inner.inputs['thoughts']}\n{inner.outputs['thought']}".strip() for inner in order[:width]]
        best = kept[0]
    assert step.steps[-1].inputs["thoughts"] == best
    assert drawn == len(proposals) <= nodes
    assert step.value == max((inner.value for inner in proposals if says(inner, best)), default=None)
    assert cost_calls(search) >= sum(len(inner.calls) for inner in step.steps)


@given(SMALL, SMALL, st.integers(1, 14), st.integers(0, 5))
def test_best_first_always_continues_the_best_open_state(depth: int, branch: int, nodes: int, seed: int) -> None:
    search = TreeSearch(PROPOSE, Predict("Answer it."), depth, branch, 2, "best_first", nodes)
    step = done(search, random_script(seed), question="Q")
    assert done(search, random_script(seed), question="Q") == step
    proposals = list(step.steps[:-1])
    assert len(proposals) <= nodes
    opened: list[tuple[str, float, int]] = []
    tried: list[tuple[str, float, int]] = []
    state, rest = ("", 0.0, 0), proposals
    while state[2] < depth and rest:
        mine, rest = rest[:branch], rest[branch:]
        assert {inner.inputs["thoughts"] for inner in mine} == {state[0]}
        for inner in mine:
            if inner.value is not None:
                line = f"{state[0]}\n{inner.outputs['thought']}".strip()
                opened.append((line, inner.value, state[2] + 1))
        if not opened:
            state = max(tried, key=lambda other: other[1], default=("", 0.0, 0))
            break
        state = max(opened, key=lambda other: other[1])
        opened.remove(state)
        tried.append(state)
    assert not rest, "nothing is drawn after the search has ended"
    assert step.steps[-1].inputs["thoughts"] == state[0]
    assert cost_calls(search) >= sum(len(inner.calls) for inner in step.steps)


def says(inner: Step, thoughts: str) -> bool:
    """Whether a judged proposal led to these thoughts."""
    return inner.value is not None and f"{inner.inputs['thoughts']}\n{inner.outputs['thought']}".strip() == thoughts


def cost_calls(search: TreeSearch) -> int:
    return search.cost({"question": 10}).calls


def test_the_cost_is_of_the_largest_tree_or_of_the_bound() -> None:
    search = TreeSearch(PROPOSE, Predict("Answer it.", max_tokens=7), depth=3, branch=2, beam=3, nodes=100)
    cost = search.cost({"question": 10})
    drawn = 2 + 2 * 3 + 2 * 3
    assert (cost.calls, cost.written, cost.gives) == (2 * drawn + 1, 64 * drawn + 7, {"answer": 7})
    assert TreeSearch(PROPOSE, search.answer, nodes=5).cost({"question": 10}).calls == 11


def test_tree_search_is_written_and_read_alike() -> None:
    round_trip(
        TreeSearch(PROPOSE, Predict("Answer it.", output="result"), 2, 4, 3, "best_first", 9, "Good?"), "question"
    )
    program = Program(SEARCH(Input("question")))
    edited = program.replace({"answer.value": "Is it right?", "answer.beam": 3, "answer.propose.temperature": 1.0})
    layer = edited.output_node.layer
    assert isinstance(layer, TreeSearch)
    assert (layer.value, layer.beam, layer.propose) == (
        "Is it right?",
        3,
        Predict("Think on.", "thought", temperature=1.0),
    )
    assert layer.summary == "beam 3 · depth 2 · branch 2 · 24 nodes"
    part = {"layer": "predict", "instruction": "x"}
    spec = {"layer": "tree_search", "inputs": ["question"], "propose": part, "answer": part}
    read = Program.from_mapping({"reply": spec}).node("reply").layer
    assert read.outputs == ("reply",)
    assert read.parts["propose"].outputs == ("thought",)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"propose": None}, "node 'a': propose: expected a mapping with a layer"),
        ({"answer": None}, "node 'a': answer: expected a mapping with a layer"),
        ({"depth": 0}, "node 'a': depth: expected a number from 1 to 16, found 0"),
        ({"nodes": "many"}, "node 'a': nodes: expected a whole number, found 'many'"),
        ({"strategy": "deep"}, "node 'a': strategy: expected 'beam' or 'best_first', found 'deep'"),
        ({"value": " "}, "node 'a': value: expected text"),
        ({"breadth": 3}, "node 'a': unknown key 'breadth'"),
    ],
)
def test_tree_search_names_what_is_wrong(spec: Mapping[str, Any], says: str) -> None:
    part = {"layer": "predict", "instruction": "x"}
    whole = {"layer": "tree_search", "inputs": ["question"], "propose": part, "answer": part, **spec}
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": whole})
    assert str(raised.value).startswith(says)


@pytest.mark.model
def test_tree_search_with_a_real_model() -> None:
    propose = Predict("Write the next thought.", output="thought", temperature=0.8, max_tokens=8, stop=("\n",))
    answer = Predict("Is it true?", choices=("yes", "no"))
    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        for strategy in ("beam", "best_first"):
            search = TreeSearch(propose, answer, 2, 2, 1, strategy, 4)
            flow = perform("node", search, {"question": "Can a fish swim?"})
            step = runtime.run(flow)
            assert step.error is None
            judged = [inner for inner in step.steps[:-1] if inner.value is not None]
            assert 1 <= len(judged) <= len(step.steps) - 1 <= 4
            assert step.value in [inner.value for inner in judged]
            assert step.outputs["answer"] in ("yes", "no")
            assert step.probabilities == step.steps[-1].probabilities
            calls = runtime.usage.calls
            assert runtime.run(perform("node", search, {"question": "Can a fish swim?"})) == step
            assert runtime.usage.cached_calls >= runtime.usage.calls - calls, "done again from the store"
