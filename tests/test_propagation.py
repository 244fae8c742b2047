"""Trace propagation: what a problem shows of a program, in which words, and what goes first where room is short."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.feedback.propagation.problem import Problem, propagated
from engine.feedback.propagation.subgraph import between, on_shortest_paths, sources_of
from engine.feedback.propagation.variables import Variables
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend, keyword_script
from engine.program.graph import Program
from engine.program.layer import Input, Node, Symbol
from engine.program.layers import Code, Predict, Retrieve, Route, RunCode, Sequential, Vote
from engine.program.parameters import Choice, Number, Text
from engine.records import Chat, Example, Judgement, Prediction, Step, Trace
from engine.store.store import Store

QUESTION = Input("question")


def two_steps() -> Program:
    draft = Predict("Draft it.", output="draft", style="plain")(QUESTION)
    return Program(Predict("Which kind?", output="kind", choices=("new", "old"))(QUESTION, draft))


def trace(program: Program, outputs: dict[str, str], target: str = "new", error: str | None = None) -> Trace:
    """An execution by what each node wrote in its main field; with an error the node after the last of them failed."""
    example = Example("1", {name: f"the {name}" for name in program.inputs}, (target,))
    values = dict(example.inputs)
    steps = []
    for node in program.nodes[: len(outputs) + (error is not None)]:
        given = {name: values[reference] for name, reference in node.sources.items()}
        written = dict.fromkeys(node.layer.outputs, outputs[node.name]) if node.name in outputs else {}
        steps.append(Step(node.name, given, written, error=None if written else error))
        values |= {f"{node.name}.{field}": text for field, text in written.items()}
    if error is not None:
        return Trace("p", example, tuple(steps), Prediction("", error=f"{steps[-1].node}: {error}"), 0.0)
    answer = outputs[program.output_node.name]
    return Trace("p", example, tuple(steps), Prediction(answer), float(answer == target))


def problem(program: Program, traces: Iterable[Trace], room: int = 2000, **settings: object) -> Problem | None:
    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        found = runtime.run(propagated(program, list(traces), room, **settings))  # type: ignore[arg-type]
        assert found is None or found.tokens == runtime.backend("optimizer").count(found.prompt)
        return found


def text_of(found: Problem | None) -> str:
    assert found is not None
    assert isinstance(found.prompt, Chat)
    return found.prompt.messages[-1].text


def test_the_exact_text_of_a_small_problem() -> None:
    program = two_steps()
    wrong = trace(program, {"draft": 'say "old"\nor new', "kind": "old"})
    wrong = replace(wrong, judgements=(Judgement("draft", 0.25, "It does not decide."), Judgement("", 1.0)))
    right = trace(program, {"draft": "new", "kind": "new"})
    found = problem(program, [right, wrong, right], attempts=['draft_style = "chat" scored 0.50'])
    assert found is not None
    assert isinstance(found.prompt, Chat)
    assert [message.role for message in found.prompt.messages] == ["system", "user"]
    assert found.prompt.messages[0].text == (
        "You improve a program by changing its variables. #Code shows how its values are computed. #Variables shows "
        "what you may change. Each #Execution shows the values of one run and what was said of the result. Find out "
        "which variables are to blame for what is wrong, and change them."
    )
    assert text_of(found) == (
        "#Code\n"
        "draft = predict(question, instruction=draft_instruction, style=draft_style, temperature=draft_temperature, "
        "max_tokens=draft_max_tokens)  # draft · plain\n"
        "kind = predict(question, draft, instruction=kind_instruction, style=kind_style, "
        "list_choices=kind_list_choices)  # 2 choices · chat\n"
        "\n"
        "#Variables\n"
        'draft_instruction: text of at most 300 characters = "Draft it."\n'
        'draft_style: "chat" or "plain" = "plain"\n'
        "draft_temperature: number from 0 to 2 = 0.0\n"
        "draft_max_tokens: whole number from 16 to 256 = 64\n"
        'kind_instruction: text of at most 300 characters = "Which kind?"\n'
        'kind_style: "chat" or "plain" = "chat"\n'
        'kind_list_choices: "yes" or "no" = "yes"\n'
        "\n"
        "#Execution 1, score 0\n"
        'question = "the question"\n'
        'draft = "say \\"old\\"\\nor new"\n'
        'kind = "old"\n'
        '#Feedback: The answer was "old", but "new" is right.\n'
        "#Judge of draft, 0.25: It does not decide.\n"
        "\n"
        "#Execution 2, score 1\n"
        'question = "the question"\n'
        'draft = "new"\n'
        'kind = "new"\n'
        "#Feedback: The answer is right.\n"
        "\n"
        '#Tried: draft_style = "chat" scored 0.50\n'
        "\n"
        "Give new values to the variables that should change, as JSON: {variable: new value}."
    )
    assert list(found.parameters) == [
        "draft_instruction",
        "draft_style",
        "draft_temperature",
        "draft_max_tokens",
        "kind_instruction",
        "kind_style",
        "kind_list_choices",
    ]


def test_where_nothing_failed_there_is_no_problem() -> None:
    program = two_steps()
    assert problem(program, [trace(program, {"draft": "new", "kind": "new"})]) is None
    assert problem(program, []) is None


def test_a_failure_that_no_edit_can_reach_is_no_problem() -> None:
    program = Program(Code("value = 1", output="size")(RunCode(output="first")(QUESTION)))
    assert problem(program, [trace(program, {}, error="broken")]) is None
    found = problem(program, [trace(program, {"first": "1"}, error="broken"), trace(program, {}, error="broken")])
    assert found is not None
    assert "#Execution 2" not in text_of(found)
    assert list(found.parameters) == ["size_source"]


def test_what_lies_behind_a_failure_or_beside_it_is_not_shown() -> None:
    plan = Predict("Plan it.", output="plan")(QUESTION)
    aside = Predict("Look aside.", output="aside")(QUESTION)
    program = Program(Predict("Solve it.", output="answer")(aside, plan))
    assert [node.name for node in program.nodes] == ["aside", "plan", "answer"]
    found = problem(program, [trace(program, {"aside": "A"}, error="too long")])
    shown = text_of(found)
    assert "Look aside." not in shown
    assert "Solve it." not in shown
    assert found is not None
    assert {name.split("_")[0] for name in found.parameters} == {"plan"}
    assert '#Feedback: There was no answer (plan: too long); "new" was expected.' in shown
    both = problem(program, [trace(program, {"aside": "A"}, error="too long"), answered(program)])
    assert both is not None
    assert {name.split("_")[0] for name in both.parameters} == {"aside", "plan", "answer"}


def answered(program: Program) -> Trace:
    return trace(program, {node.name: f"{node.name} text" for node in program.nodes})


def test_what_a_node_without_anything_to_edit_gave_is_an_input() -> None:
    program = Program(Predict("Solve it.", output="answer")(RunCode(output="first")(QUESTION)))
    shown = text_of(problem(program, [trace(program, {"first": "F", "answer": "x"})]))
    assert "answer = predict(first, instruction=answer_instruction" in shown
    assert '\nfirst = "F"\nanswer = "x"\n' in shown
    assert "the question" not in shown


def test_parts_are_written_as_calls_in_their_places_and_what_they_did_is_shown() -> None:
    stack = Sequential(
        {"draft": Predict("Draft it.", output="draft"), "vote": Vote(Predict("Say.", temperature=1), n=3)}
    )
    route = Route(Predict("Who?", choices=("maths", "words")), {
        "maths": Predict("Count."), "words": stack
    })(QUESTION, name="answer")  # fmt: skip
    program = Program(route)
    names = Variables.of(program)
    shown = ["answer.top", "answer.gate.instruction", "answer.experts.words.steps.vote.of.instruction"]
    assert names.assignment(program.nodes[0], shown) == (
        "answer = route(question, top=answer_top, gate=predict(instruction=answer_gate_instruction), maths=predict(), "
        "words=sequential(draft=predict(), vote=vote(of=predict("
        "instruction=answer_experts_words_steps_vote_of_instruction))))  # 1 of maths, words"
    )
    wrong = trace(program, {"answer": "x"})
    inner = (Step("gate", {}, {"answer": "maths"}), Step("experts.maths", {}, {}, error="too\nlong"))
    wrong = replace(wrong, steps=(replace(wrong.steps[0], steps=inner),))
    assert (
        'answer = "x"\n#in answer, gate gave maths\n#in answer, experts.maths failed: too long\n#Feedback'
    ) in text_of(problem(program, [wrong]))


def test_every_output_of_a_node_has_its_variable() -> None:
    draft = Predict("Draft it.", output=("reason", "draft"))(QUESTION)
    program = Program(Predict("Solve it.", output="answer")(draft, draft["reason"]))
    shown = text_of(problem(program, [answered(program)]))
    assert "\ndraft_reason, draft = predict(question, instruction=draft_instruction" in shown
    assert "\nanswer = predict(draft, draft_reason, instruction=answer_instruction" in shown


def test_parameters_that_are_not_edited_by_default_are_shown_where_they_are_asked_for() -> None:
    program = two_steps()
    wrong = trace(program, {"draft": "d", "kind": "old"})
    found = problem(program, [wrong], also=("kind.bias", "draft.demos"))
    assert "\nkind_bias: list of numbers, one each for new, old = []\n" in text_of(found)
    assert "\ndraft_demos: list of at most 4 solved examples = []\n" in text_of(found)
    assert found is not None
    assert {"kind_bias", "draft_demos"} <= set(found.parameters)


def test_of_very_many_parameters_texts_are_shown_first() -> None:
    symbol: Symbol = QUESTION
    for number in range(9):
        symbol = Predict(f"Do {number}.", output=f"text{number}")(symbol)
    found = problem(Program(symbol), [answered(Program(symbol))], room=9000)
    assert found is not None
    kinds = [type(parameter) for parameter in found.parameters.values()]
    assert (kinds.count(Text), kinds.count(Choice), kinds.count(Number)) == (9, 5, 10)


# ── short of room ────────────────────────────────────────────────────────────────────────────────


def test_what_is_left_out_as_room_grows_short_comes_in_the_order_that_is_said() -> None:
    long = " ".join(f"w{number}" for number in range(90))
    plan = Predict("Plan it.", output="plan")(QUESTION)
    hits, checked = Retrieve("kb", output="hits")(plan), RunCode(output="checked")(plan)
    program = Program(Predict("Solve it.", output="answer")(hits, checked))
    texts = {"plan": "planned", "hits": "found", "checked": "aside", "answer": "wrong"}
    first, other = trace(program, texts), trace(program, texts)
    planned = replace(first.steps[0], inputs={"question": long}, steps=(Step("part", {}, {"x": "y"}),))
    first = replace(first, steps=(planned, *first.steps[1:]), judgements=(Judgement("plan", 0.0, "Remarked."),))
    traces = [first, trace(program, {**texts, "answer": "new"}), other, other]
    marks = {
        "attempt": "#Tried: it",
        "end of the long value": "w80",
        "right execution": "#Execution 4",
        "third failure": "#Execution 3",
        "second failure": "#Execution 2",
        "inside": "#in plan, part",
        "aside": 'checked = "aside"',
        "far on the path": 'plan = "planned"',
        "near on the path": 'hits = "found"',
        "remark": "Remarked.",
    }
    seen: list[list[str]] = []
    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        whole = runtime.run(propagated(program, traces, 9000, attempts=["it"]))
        assert whole is not None
        for room in range(whole.tokens, 80, -1):
            found = runtime.run(propagated(program, traces, room, attempts=["it"]))
            assert found is not None
            assert found.tokens <= room
            kept = [name for name, mark in marks.items() if mark in text_of(found)]
            seen += [kept] if not seen or kept != seen[-1] else []
    assert seen == [list(marks)[place:] for place in range(len(marks) + 1)]


# ── the sub-graph ────────────────────────────────────────────────────────────────────────────────

DAGS = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size),
        st.sets(st.integers(0, size - 1)),
        st.sets(st.integers(0, size - 1), min_size=1, max_size=2),
    )
)


def graph(reads: list[set[int]]) -> Program:
    """Nodes n0, n1, … of which each reads the question and those earlier ones that are named."""
    nodes = []
    for number, sources in enumerate(reads):
        references = {"question": "question"} | {f"n{one}": f"n{one}.n{one}" for one in sources if one < number}
        nodes.append(Node(f"n{number}", RunCode(output=f"n{number}"), references))
    return Program.assemble(["question"], nodes, f"n{len(reads) - 1}.n{len(reads) - 1}")


def ways(program: Program, start: str, end: str) -> list[list[str]]:
    """Every way from one node to another, both included."""
    if start == end:
        return [[end]]
    readers = [node.name for node in program.nodes if start in sources_of(node)]
    return [[start, *way] for reader in readers for way in ways(program, reader, end)]


@given(DAGS)
def test_the_sub_graph_is_all_that_lies_on_a_way_from_an_edit_to_an_end(dag: tuple[list[set[int]], ...]) -> None:
    reads, edits, stops = dag
    program, editable, ends = graph(reads), [f"n{n}" for n in edits], [f"n{n}" for n in stops]  # type: ignore[arg-type]
    on_a_way = {name for start in editable for end in ends for way in ways(program, start, end) for name in way}
    assert [node.name for node in between(program, editable, ends)] == [
        node.name for node in program.nodes if node.name in on_a_way
    ]


@given(DAGS)
def test_shortest_paths_join_every_edit_with_the_end(dag: tuple[list[set[int]], ...]) -> None:
    reads, edits, _ = dag
    program, editable, end = graph(reads), [f"n{n}" for n in edits], f"n{len(reads) - 1}"  # type: ignore[arg-type]
    found = on_shortest_paths(between(program, editable, [end]), editable, end)
    shortest = []
    for start in editable:
        all_ways = ways(program, start, end)
        if all_ways:
            inside = [way for way in all_ways if set(way) <= found]
            assert min(map(len, inside), default=0) == min(map(len, all_ways))
            shortest += [way for way in all_ways if len(way) == min(map(len, all_ways))]
    assert found <= {name for way in shortest for name in way}
