"""Stock architectures: each is an ordinary program, runs to its end, and leaves everything it did in its trace."""

import inspect
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_library import FUNCTIONS, made

from engine.errors import ContentError
from engine.forward import example_from, forward
from engine.inference.runtime import Runtime
from engine.opening import open_runtime
from engine.program import library
from engine.program.drawing import as_text
from engine.program.graph import Program
from engine.program.layer import calls_of
from engine.program.library import ARCHITECTURES, architecture, architecture_nodes
from engine.program.parameters import Text
from engine.records import Example, Step, Trace
from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.opening import open_embedder
from engine.retrieval.recipe import Recipe, write_recipe
from engine.tasks.metrics import METRICS

LEAST_CALLS = {"self_consistency": 4, "ensemble": 3, "multi_hop_rag": 2, "plan_and_solve": 2, "router": 2}


def all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from all_steps(step.steps)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, a database and a tool."""
    folder: Path = tmp_path_factory.mktemp("project")
    (folder / "a.md").write_text("Parcels may be returned within thirty days.")
    (folder / "b.md").write_text("Oslo is the capital of Norway.")
    recipe = Recipe(docs=("../*.md",))
    (folder / "indexes").mkdir()
    write_recipe(recipe, folder / "indexes" / "kb.toml")
    documents = read_documents(recipe.docs, folder / "indexes")
    build("kb", recipe, documents, folder / "indexes", open_embedder(recipe.embedder, folder))
    database = sqlite3.connect(folder / "shop.db")
    database.execute("CREATE TABLE orders (id INTEGER, team TEXT)")
    database.commit()
    database.close()
    (folder / "tools.py").write_text('def double(x: int) -> int:\n    """Double."""\n    return 2 * x\n')
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_stock_architecture_is_a_program_like_any_other(name: str) -> None:
    program = made(name)
    again = Program.from_mapping(program.to_mapping())
    assert again == program
    assert again.fingerprint == program.fingerprint
    assert as_text(program)[-1].startswith(f"{program.output_node.name}.")
    assert any(isinstance(parameter, Text) for parameter in program.parameters.values())
    for parameter, value in program.parameters.items():
        assert program.replace({parameter: value.value}) == program, parameter


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_in_the_table_of_the_module_with_its_own_docstring(name: str) -> None:
    assert name in (library.__doc__ or "")
    assert inspect.getdoc(ARCHITECTURES[name])


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("ragg", {}, "unknown architecture 'ragg': did you mean 'rag'?"),
        ("rag", {}, "architecture rag needs index"),
        ("agent", {}, "unknown architecture 'agent': that is a layer: write it as a node"),
        ("router", {"experts": ["a", "b"]}, "experts: expected a mapping, found ['a', 'b']"),
        ("router", {"experts": {"a": 3, "b": "x"}}, "experts: expected text, found {'a': 3, 'b': 'x'}"),
        ("classify_then_answer", {"kinds": 3}, "kinds: expected a list, found 3"),
        ("rag", {"index": 5}, "index: expected text, found 5"),
        ("rag", {"index": "kb", "instruktion": "x"}, "unknown key 'instruktion': did you mean 'instruction'?"),
        ("cot", {"temperature": 9}, "node 'answer': steps.answer: temperature: expected a number from 0 to 2, found 9"),
    ],
)
def test_a_mistake_in_the_settings_is_named(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        architecture(name, ("question",), **settings)
    assert str(raised.value) == says


def test_the_settings_of_the_answer_reach_the_layer_that_answers() -> None:
    nodes = architecture_nodes("rag", ("question",), {"index": "kb", "choices": ["yes", "no"], "style": "plain"})
    assert nodes["answer"]["choices"] == ["yes", "no"]
    assert nodes["answer"]["inputs"] == ["passages", "question"]
    voting = architecture("ensemble", ("question",), choices=["yes", "no"]).parameters
    assert voting["answer.branches.expert.bias"].value == ()


@pytest.fixture(scope="module")
def model(project: Path) -> Iterator[Runtime]:
    with open_runtime("smollm2-135m", store=project / "store.db", folder=project) as runtime:
        yield runtime


@pytest.mark.model
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_runs_on_the_real_model_and_leaves_all_it_did(name: str, model: Runtime) -> None:
    program = made(name)
    given = {"question": "How many days do I have to return a parcel?", "functions": FUNCTIONS}
    example = Example("one", {key: given[key] for key in program.inputs}, ("30",))
    before = model.usage.calls
    (trace,) = model.run(forward(program, [example], METRICS["exact_match"]), run=name)
    steps = list(all_steps(trace.steps))
    keys = {key for step in trace.steps for key in calls_of(step)}
    asked = model.usage.calls - before
    assert asked >= LEAST_CALLS.get(name, 1)
    kinds = [model.store.call(key).kind for key in keys]  # type: ignore[union-attr]  # every call is in the store
    assert sum(kind in ("generate", "score") for kind in kinds) <= asked
    assert kinds
    stored = model.store.trace(next(row.id for row in model.store.traces(run=name)))
    assert stored is not None
    assert seen(stored) == seen(trace)
    if "rag" in name:
        assert sum(len(step.passages) for step in steps) >= 2
    if trace.prediction.error is None:
        assert trace.steps[-1].outputs
    else:
        assert name in ("pal",), "only code that the model wrote may fail here"


def seen(trace: Any) -> Any:
    """What of a trace must come back from the store."""
    found = trace if isinstance(trace, Trace) else trace.trace
    return found.program, found.steps, found.prediction, found.score


@pytest.mark.model
def test_a_program_runs_on_inputs_that_nobody_labelled(project: Path) -> None:
    with open_runtime("scripted", store=":memory:", folder=project) as runtime:
        (trace,) = runtime.run(forward(made("plan_and_solve"), [example_from({"question": "Why?"})]))
        assert trace.prediction.text
