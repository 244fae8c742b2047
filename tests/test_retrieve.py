"""The layer Retrieve and the service behind it: what is searched, what stands in the trace, whom passages blame."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support_layers import Script, done, gradients, round_trip

from engine.errors import ContentError, UsageError
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.inference.service import Service
from engine.opening import check_outside
from engine.program.graph import Program
from engine.program.layer import Input, Outside
from engine.program.layers import Predict, Retrieve
from engine.records import Example, Passage, Role, Step
from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, write_recipe
from engine.retrieval.service import RetrievalService
from engine.store.store import Store

ROWS = [
    {"id": "tea", "title": "Tea", "text": "Tea is brewed from leaves in hot water."},
    {"id": "bread", "title": "Bread", "text": "Bread is baked from flour, water and salt."},
    {"id": "ships", "text": "Ships cross the sea with cargo and crew."},
]
LEXICAL = Retrieve("kb", k=2, mode="lexical")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("project")
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    recipe, indexes = Recipe(docs=("../docs.jsonl",)), folder / "indexes"
    write_recipe(recipe, indexes / "kb.toml")
    build("kb", recipe, read_documents(recipe.docs, indexes), indexes, open_embedder(recipe.embedder, indexes))
    return folder


@pytest.fixture
def services(project: Path) -> Mapping[Role, Service]:
    return {"retrieval": RetrievalService(project)}


def ids(passages: Sequence[Passage]) -> list[str]:
    return [passage.id for passage in passages]


@pytest.mark.model
def test_passages_come_numbered_and_stand_in_the_trace_with_ids_and_scores(services: Mapping[Role, Service]) -> None:
    step = done(LEXICAL, Script({}), services, question="What is baked from flour, and what is brewed?")
    assert step.outputs["passages"].splitlines() == [
        "[1] Bread: Bread is baked from flour, water and salt.",
        "[2] Tea: Tea is brewed from leaves in hot water.",
    ]
    assert ids(step.passages) == ["bread", "tea"]
    assert step.passages[0].score > step.passages[1].score > 0
    assert len(step.calls) == 1


@pytest.mark.model
@pytest.mark.parametrize("mode", ["dense", "hybrid", "lexical"])
def test_every_mode_finds_what_answers(services: Mapping[Role, Service], mode: Any) -> None:
    step = done(Retrieve("kb", k=1, mode=mode), Script({}), services, question="vessels that cross the sea")
    assert ids(step.passages) == ["ships"]
    assert step.outputs["passages"] == "[1] Ships cross the sea with cargo and crew.", "without a title"


@pytest.mark.model
def test_several_inputs_make_one_query(services: Mapping[Role, Service]) -> None:
    step = done(Retrieve("kb", k=1, mode="lexical"), Script({}), services, question="It floats.", thought="cargo crew")
    assert ids(step.passages) == ["ships"]


@pytest.mark.model
def test_a_threshold_leaves_out_what_is_weaker_and_nothing_found_is_no_error(services: Mapping[Role, Service]) -> None:
    step = done(Retrieve("kb", mode="dense", threshold=0.99), Script({}), services, question="tea")
    assert (step.error, step.passages, step.outputs) == (None, (), {"passages": ""})


@pytest.mark.model
def test_the_same_search_is_made_once_and_is_no_call_of_a_model(project: Path, tmp_path: Path) -> None:
    program = Program(LEXICAL(Input("question")))
    example = Example("1", {"question": "tea"})
    for _ in range(2):
        with Runtime(
            {"task": ScriptedBackend(Script({}))}, Store(tmp_path / "s.db"), {"retrieval": RetrievalService(project)}
        ) as runtime:
            (trace,) = runtime.run(forward(program, [example]))
            assert ids(trace.steps[0].passages)[0] == "tea"
            assert runtime.usage.calls == 0
            assert runtime.store.calls_paid() == (1, 1)


@pytest.mark.model
def test_a_prompt_shows_what_was_found(services: Mapping[Role, Service]) -> None:
    question = Input("question")
    program = Program(Predict("Answer.")(LEXICAL(question), question))
    script = Script({"Passages: [1] Tea: Tea is brewed": "in hot water"})
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), services) as runtime:
        (trace,) = runtime.run(forward(program, [Example("1", {"question": "How is tea brewed?"})]))
    assert trace.prediction.text == "in hot water"


def test_what_is_said_of_passages_is_said_of_the_queries_that_somebody_wrote() -> None:
    script = Script({})
    step = Step("node", {"question": "Q", "thought": "T"}, {"passages": "[1] x"})
    found = gradients(LEXICAL, step, script, "thought")
    assert found.inputs == {"thought": ["It found passages of which was said: It was wrong."]}
    assert found.parameters == {}
    assert script.asked == []


def test_k_mode_and_threshold_are_parameters_and_all_of_it_reads_back() -> None:
    layer = Retrieve("kb", k=7, mode="dense", threshold=0.25)
    round_trip(layer, "question")
    program = Program(layer(Input("question"))).replace({"passages.k": 3, "passages.mode": "lexical"})
    assert program.node("passages").layer == Retrieve("kb", k=3, mode="lexical", threshold=0.25)
    assert layer.summary == "7 of kb, dense, from 0.25"
    assert layer.cost({"question": 9}).calls == 0
    assert layer.outside == (Outside("index", "kb"),)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "index is missing"),
        ({"index": "kb", "k": 0}, "k: expected a number from 1 to 50, found 0"),
        ({"index": "kb", "mode": "fuzzy"}, "mode: expected 'dense', 'lexical' or 'hybrid', found 'fuzzy'"),
        ({"index": "kb", "treshold": 1}, "unknown key 'treshold': did you mean 'threshold'?"),
        ({"index": "kb", "outputs": ["a", "b"]}, "outputs: expected a list of one name, found ['a', 'b']"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"a": {"layer": "retrieve", "inputs": ["question"], **settings}})
    assert str(raised.value) == f"node 'a': {says}"


@pytest.mark.model
def test_what_is_needed_is_looked_for_before_a_model_is_loaded(project: Path) -> None:
    check_outside(Program(LEXICAL(Input("question"))), project, str)
    with pytest.raises(UsageError, match=r"^other: .*other\.toml: no such index"):
        check_outside(Program(Retrieve("other")(Input("question"))), project, str)
    write_recipe(Recipe(docs=("../docs.jsonl",)), project / "indexes" / "new.toml")
    with pytest.raises(ContentError, match=r"new\.toml: is not built: localgrad index build new"):
        check_outside(Program(Retrieve("new")(Input("question"))), project, str)
