"""Proposers that show solved examples: where demos may stand, what they are made of, and which of them are proposed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from numpy.random import default_rng
from support_layers import Script
from support_nearest import Ends
from support_optim import COLOURS, EXACT, closed_program, guessing, history_of, open_program, proposed, rows, runtime_of

import engine
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend
from engine.optim.demonstrations import as_sets, drawn, from_both, from_targets, from_traces
from engine.optim.history import Candidate, Proposal
from engine.optim.novelty import untried
from engine.optim.proposers.bootstrap_demos import BootstrapDemosProposer
from engine.optim.proposers.demos import DemosProposer
from engine.optim.proposers.labelled_demos import LabelledDemosProposer
from engine.optim.proposers.nearest_demos import NearestDemosProposer
from engine.optim.proposers.order_demos import OrderDemosProposer
from engine.optim.screening import probe, showable
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Refine, Route, Sequential, Vote
from engine.program.parameters import Demo
from engine.program.places import places
from engine.records import Example, Generate, Request, Score, Trace
from engine.store.store import Store

TRAIN = rows(40)


def colour(**settings: Any) -> Predict:
    return Predict("Name the colour.", output="colour", **settings)


def refined() -> Program:
    return Program(Refine(colour(max_tokens=8), check=Predict("Is it right?", output="verdict"))(Input("text")))


def voted() -> Program:
    steps = {"reason": Predict("Think.", output="reason", temperature=0.7), "answer": colour()}
    return Program(Vote(of=Sequential(steps), n=3)(Input("text"), name="answer"))


def routed() -> Program:
    gate = Predict("Is it bright?", output="expert", choices=("bright", "dark"))
    experts = {name: colour(choices=COLOURS) for name in ("bright", "dark")}
    return Program(Route(gate, experts)(Input("text"), name="answer"))


def ran(program: Program, script: Any, examples: list[Example] = TRAIN) -> list[Trace]:
    with runtime_of(script) as runtime:
        return runtime.run(EXACT.run(program, examples))


# ── places ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("program", "answering", "direct"),
    [
        (closed_program(), ["colour"], ["colour"]),
        (open_program(), ["colour"], ["hint"]),
        (refined(), ["colour", "colour.of"], ["colour", "colour.of"]),
        (
            voted(),
            ["answer", "answer.of", "answer.of.steps.answer"],
            ["answer", "answer.of", "answer.of.steps.reason"],
        ),
        (
            routed(),
            ["answer", "answer.experts.bright", "answer.experts.dark"],
            ["answer", "answer.gate", "answer.experts.bright", "answer.experts.dark"],
        ),
    ],
)
def test_a_place_tells_whether_it_gives_the_answer_and_reads_inputs_alone(
    program: Program, answering: list[str], direct: list[str]
) -> None:
    found = places(program)
    assert [place.name for place in found if place.answers] == answering
    assert [place.name for place in found if place.direct] == direct
    for place in found:
        for name, value in place.parameters().items():
            assert program.parameters[f"{place.name}.{name}"].value == value.value


def test_the_steps_of_a_place_are_found_however_deep_it_stands() -> None:
    (trace,) = ran(voted(), Script({"Think.": "because", "Name": "red"}), TRAIN[:1])
    by_name = {place.name: place.steps(trace.steps) for place in places(voted())}
    assert [step.node for step in by_name["answer.of"]] == ["of 1", "of 2", "of 3"]
    assert [step.outputs for step in by_name["answer.of.steps.reason"]] == [{"reason": "because"}] * 3


# ── what can be shown ────────────────────────────────────────────────────────────────────────────


def test_labelled_demos_go_where_a_row_tells_what_should_be_given() -> None:
    for program, names in ((refined(), ["colour.of.demos"]), (voted(), []), (open_program(), [])):
        found = from_targets(program, TRAIN)
        assert [list(one.demos) for one in found] == ([names] * len(TRAIN) if names else [])
    (first, *_) = from_targets(routed(), TRAIN)
    demo = Demo(dict(TRAIN[0].inputs), {"colour": "blue"})
    assert first.demos == {"answer.experts.bright.demos": demo, "answer.experts.dark.demos": demo}


def test_a_row_whose_target_is_no_value_of_the_output_is_not_shown() -> None:
    program = Program(Predict("Count.", output={"n": "int"})(Input("text")))
    examples = [Example(name, {"text": name}, (name,)) for name in ("7", "seven")]
    assert [one.answer for one in from_targets(program, examples)] == ["7"]


def test_bootstrapped_demos_are_what_each_place_did_in_right_executions() -> None:
    script = Script({"Think.": lambda request: f"thought {request.sample % 7}", "Name": says_colour})
    traces = ran(voted(), script, TRAIN[:6])
    found = from_traces(voted(), traces)
    assert [one.answer for one in found] == [trace.example.target for trace in traces if trace.score == 1.0]
    assert 0 < len(found) < 6
    for one, trace in zip(found, [trace for trace in traces if trace.score == 1.0], strict=True):
        reason = one.demos["answer.of.steps.reason.demos"]
        answer = one.demos["answer.of.steps.answer.demos"]
        assert reason.inputs == trace.example.inputs
        assert answer.inputs == {**trace.example.inputs, **reason.outputs}
        assert answer.outputs == {"colour": trace.prediction.text}


def says_colour(request: Generate) -> str:
    """Right but for things whose number ends in 4; a sample that is wrong says something else."""
    text = getattr(request.prompt, "text", "") or request.prompt.messages[-1].text  # type: ignore[union-attr]
    return "no colour" if "thing 4" in text else next(name for name in COLOURS if f"is {name}" in text)


def test_a_sample_that_was_outvoted_is_not_shown() -> None:
    answers = iter(("green", "blue", "blue") * 2)
    script = Script({"Think.": "hm", "Name": lambda request: next(answers)})
    traces = ran(Program(Vote(of=colour(temperature=0.7), n=3)(Input("text"))), script, TRAIN[:1])
    (found,) = from_traces(Program(Vote(of=colour(temperature=0.7), n=3)(Input("text"))), traces)
    assert found.demos["colour.of.demos"].outputs == {"colour": "blue"}


def test_labels_and_executions_go_together() -> None:
    """The draft is shown with its label in every row, the check in those that were right."""
    run = history_of(refined(), TRAIN, allowance_calls=400)
    script = Script({"Is it right?": "ok", "Name": lambda request: "blue"})
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:")) as runtime:
        found = runtime.run(from_both(run, 400))
        assert runtime.usage.calls <= 400
    assert len(found) == len(showable(TRAIN))
    for one in found:
        assert one.demos["colour.of.demos"].outputs == {"colour": one.answer}
        assert ("colour.check.demos" in one.demos) == (one.answer == "blue")


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_balanced_over_the_answers() -> None:
    examples = [Example(str(n), {"text": f"thing {n}"}, ("red" if n else "blue",)) for n in range(20)]
    solved = from_targets(closed_program(), examples)
    (demos,) = drawn(closed_program(), solved, 5, default_rng(0)).values()
    assert Counter(demo.outputs["colour"] for demo in demos) == {"red": 4, "blue": 1}
    assert len(drawn(closed_program(), solved, 99, default_rng(0))["colour.demos"]) == 20


def test_a_set_is_no_longer_than_a_prompt_may_be_and_replaces_a_pool() -> None:
    examples = [Example(str(n), {"text": str(n) * 3000}, ("red",)) for n in range(4)]
    start = closed_program().replace({"colour.nearest": 2, "colour.demos": [Demo({"text": "a"}, {"colour": "red"})]})
    edits = as_sets(start, from_targets(start, examples))
    assert len(edits["colour.demos"]) == 1
    assert edits["colour.nearest"] == 0
    assert start.replace(edits).parameters["colour.nearest"].value == 0


def test_what_is_measured_on_and_what_is_shown_are_spread_over_train_and_apart() -> None:
    train = rows(90)
    measured, shown = probe(closed_program(), train, 45), showable(train)
    assert {row.id for row in measured}.isdisjoint(row.id for row in shown)
    assert len(measured) + len(shown) == 90
    numbers = [int(row.id.split("-")[1]) for row in measured[:9]]
    assert all(1 <= sum(number // 30 == third for number in numbers) <= 4 for third in range(3)), "sorted rows, too"


def sees_demos(request: Request, prompt: str) -> Answer:
    """Knows what a demo of the same colour tells; the more of them are shown, the surer it is."""
    assert isinstance(request, Score)
    *shown, asked = prompt.rstrip().split("Text: ")
    right = next(name for name in COLOURS if f"is {name}" in asked)
    many = sum(f"is {right}\n" in one for one in shown[1:])
    return [float(min(many, 4)) if word.strip() == right else 0.0 for word in request.continuations]


def test_demos_are_chosen_by_how_likely_they_make_the_answers() -> None:
    start = closed_program().replace({"colour.style": "plain"})
    run = history_of(start, rows(90), allowance_calls=400)
    proposals = proposed(DemosProposer(), run, sees_demos)
    assert proposals
    for proposal in proposals:
        demos = proposal.edits["colour.demos"]
        assert min(Counter(demo.outputs["colour"] for demo in demos).values()) >= 4
        assert {demo.inputs["text"] for demo in demos} <= {row.inputs["text"] for row in showable(run.train)}


def test_labelled_demos_ask_nothing_and_bootstrapped_ones_are_right() -> None:
    with runtime_of(guessing("Red.")) as runtime:
        labelled = runtime.run(LabelledDemosProposer().propose(history_of(closed_program(), TRAIN), default_rng(0)))
        assert runtime.usage.calls == 0
    assert [len(proposal.edits["colour.demos"]) for proposal in labelled] == [16, 8, 4]
    assert not LabelledDemosProposer().suits(open_program())
    wanted = {row.inputs["text"]: row.target for row in TRAIN}
    found = proposed(BootstrapDemosProposer(), history_of(closed_program(), TRAIN), guessing(""))
    assert found
    for demo in found[0].edits["colour.demos"]:
        assert demo.outputs["colour"] == wanted[demo.inputs["text"]]


def test_rows_that_failed_are_run_again_at_a_high_temperature_each_rerun_a_draw_of_its_own() -> None:
    asked: list[Generate] = []

    def script(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        asked.append(request)
        return "red" if request.temperature and len(asked) % 3 == 0 else "?"

    program = Program(colour()(Input("text")))
    proposals = proposed(BootstrapDemosProposer(), history_of(program, rows(12)), script)
    assert {request.temperature for request in asked[:6]} == {0.0}
    assert {request.temperature for request in asked[6:]} == {1.0}
    assert len({(request.prompt, request.sample) for request in asked[6:]}) == len(asked[6:]) == 12
    assert proposals
    assert {demo.outputs["colour"] for demo in proposals[0].edits["colour.demos"]} == {"red"}


# ── the order of a set ───────────────────────────────────────────────────────────────────────────


def last_counts(request: Request, prompt: str) -> Answer:
    """Believes the last demo, a little: best where that is the answer that comes most often."""
    assert isinstance(request, Score)
    last = [name for name in COLOURS if f"Colour: {name}\n" in prompt.rsplit("\n\n", 2)[-2] + "\n"]
    return [2.0 if word.strip() in last else 0.0 for word in request.continuations]


def test_orders_are_proposed_that_train_likes_better() -> None:
    train = [Example(str(n), {"text": f"thing {n}"}, ("red" if n % 4 else "blue",)) for n in range(40)]
    demos = tuple(Demo({"text": f"x{n}"}, {"colour": name}) for n, name in enumerate(("green", "red", "blue", "blue")))
    start = closed_program().replace({"colour.style": "plain", "colour.demos": demos})
    run = history_of(start, train, calibrates=False, allowance_calls=400)
    proposals = proposed(OrderDemosProposer(), run, last_counts)
    assert 0 < len(proposals) <= 2
    for proposal in proposals:
        order = proposal.edits["colour.demos"]
        assert order[-1].outputs["colour"] == "red"
        assert set(map(str, order)) == set(map(str, demos))
    assert not OrderDemosProposer().suits(start.replace({"colour.demos": demos[:1]}))
    assert not OrderDemosProposer().suits(start.replace({"colour.nearest": 2}))


# ── nearest demonstrations ───────────────────────────────────────────────────────────────────────


def nearest(script: Any, program: Program, **settings: Any) -> tuple[list[Proposal], int]:
    run = history_of(program, rows(60), **{"allowance_calls": 600, "embeds": True, **settings})
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"retrieval": Ends()}) as runtime:
        proposals = runtime.run(NearestDemosProposer().propose(run, default_rng(0)))
        return proposals, runtime.usage.calls


def test_a_pool_of_all_train_rows_is_proposed_that_shows_the_nearest() -> None:
    proposals, calls = nearest(sees_demos, closed_program())
    assert 0 < len(proposals) <= 2
    assert calls <= 600
    for proposal in proposals:
        assert len(proposal.edits["colour.demos"]) == 60
        assert proposal.edits["colour.nearest"] >= 4
        assert proposal.edits.get("colour.order") in (None, "hubs_first")
        program = closed_program().replace(proposal.edits)
        assert program.parameters["colour.nearest"].value == proposal.edits["colour.nearest"]


def test_parts_get_pools_too_and_nothing_is_proposed_where_nothing_can_be_found() -> None:
    open_part = Program(Refine(colour(max_tokens=8))(Input("text")))
    proposals, calls = nearest(Script({"wrong": "ok", "": "blue"}), open_part)
    assert {name for proposal in proposals for name in proposal.edits} >= {"colour.of.demos", "colour.of.nearest"}
    assert calls <= 600
    assert nearest(sees_demos, closed_program(), embeds=False) == ([], 0)
    assert not NearestDemosProposer().suits(open_program())


def test_pools_that_were_candidates_are_not_proposed_again() -> None:
    first, _ = nearest(sees_demos, closed_program())
    tried = [
        Candidate(n, closed_program().replace({**one.edits, "colour.bias": (0.5, 0.0, -0.5)}), (), edits=one.edits)
        for n, one in enumerate(first, 1)
    ]
    again, _ = nearest(sees_demos, closed_program(), others=tried)
    assert again
    assert all(one.edits not in [other.edits for other in first] for one in again)


def test_edits_that_make_a_program_of_the_run_are_not_new_whatever_its_bias() -> None:
    start = closed_program()
    plain = start.replace({"colour.style": "plain", "colour.bias": (1.0, 0.0, -1.0)})
    run = history_of(start, TRAIN, others=[Candidate(1, plain, ())])
    edits: list[Mapping[str, Any]] = [{"colour.style": "plain"}, {}, {"colour.list_choices": "no"}]
    assert untried(run, [*edits, edits[-1]]) == [{"colour.list_choices": "no"}]


# ── a real model ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_demonstrations_for_the_embedded_model_are_valid_and_make_answers_likelier() -> None:
    words = {"cat": "animal", "dog": "animal", "horse": "animal", "oak": "plant", "rose": "plant", "fern": "plant"}
    train = [
        Example(f"{word} {n}", {"text": f"The {word} number {n}."}, (kind,))
        for n in range(4)
        for word, kind in words.items()
    ]
    start = Program(Predict("Sort.", output="kind", choices=("animal", "plant"))(Input("text")))
    run = history_of(start, train, allowance_calls=200)
    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        proposals = runtime.run(DemosProposer().propose(run, default_rng(0)))
        assert runtime.usage.calls <= 200
        before = runtime.run(EXACT.run(start, train[:8]))
        after = runtime.run(EXACT.run(start.replace(proposals[0].edits), train[:8]))
    assert EXACT.rank(after) <= EXACT.rank(before)
