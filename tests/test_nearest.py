"""Nearest demonstrations: which are found, which are shown in what order, and never an example to itself."""

import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TaskMaker
from hypothesis import given
from hypothesis import strategies as st
from support_inference import answers
from support_layers import Script, done, round_trip
from support_optim import history_of

from engine.errors import ContentError
from engine.feedback.losses import mean_loss
from engine.feedback.objective import Objective
from engine.forward import forward
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend
from engine.inference.service import Prepared, Reply
from engine.optim.calibration import calibrated, unseen
from engine.optim.proposers.bias import BiasProposer
from engine.optim.proposers.demos import DemosProposer
from engine.optim.proposers.settings import SettingsProposer
from engine.program.declared import declared_program
from engine.program.graph import Program
from engine.program.layer import Input, Outside
from engine.program.layers import Predict
from engine.program.parameters import Choice, Demo, Demos, Number
from engine.program.pool import EMBEDDER
from engine.program.saved import SavedProgram, load_saved
from engine.records import Completion, Example, Nearest, Passage, Request, Score
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Embedder
from engine.retrieval.nearest import NearestTexts
from engine.retrieval.opening import open_embedder
from engine.retrieval.service import RetrievalService
from engine.store.store import Store
from engine.tasks.metrics import METRICS
from engine.tasks.splits import load_splits
from engine.tasks.taskfile import load_task

pytest.importorskip("sentence_transformers")

TEXTS = (
    "Who wrote Hamlet?",
    "Who painted the Mona Lisa?",
    "Where is the city of Oslo?",
    "Where does the Nile end?",
    "How many legs has a spider?",
    "How many moons has Mars?",
    "Who wrote Hamlet?",
    "In which country lies Timbuktu?",
)
LABELS = ("person", "person", "place", "place", "number", "number", "person", "place")
POOL = tuple(Demo({"question": text}, {"kind": label}) for text, label in zip(TEXTS, LABELS, strict=True))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RetrievalService]:
    opened = RetrievalService(tmp_path_factory.mktemp("retrieval"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return open_embedder(DEFAULT_EMBEDDER, Path())


def layer(**changes: Any) -> Predict:
    settings: dict[str, Any] = {"output": "kind", "choices": ("number", "person", "place"), "style": "plain"}
    return Predict("Classify.", **{**settings, "demos": POOL, "nearest": 3, **changes})


def asked(request: Request, prompt: str) -> list[float]:
    """Prefers the answer of the last demonstration in the prompt, and numbers where there is none."""
    assert isinstance(request, Score)
    blocks = prompt.split("\n\n")[1:-1]
    last = blocks[-1].rpartition(": ")[2] if blocks else "number"
    return [1.0 if words.strip() == last else 0.0 for words in request.continuations]


# ── the service ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_the_nearest_are_those_of_brute_force(service: RetrievalService, embedder: Embedder) -> None:
    queries = ["Who composed Fidelio?", "Where is Rome?", "Who wrote Hamlet?", ""]
    vectors = embedder.embed([*queries, *TEXTS]).astype(np.float64)
    requests = [Nearest(query, TEXTS, k) for query in queries for k in (1, 3, 8, 20)]
    for request, completion in zip(requests, answers(service, requests), strict=True):
        query = vectors[queries.index(request.query)]
        cosines = [round(float(text @ query), 4) for text in vectors[len(queries) :]]
        assert completion.passages is not None
        places = [int(passage.id) for passage in completion.passages]
        assert len(set(places)) == len(places) == min(request.k, len(TEXTS))
        assert [cosines[place] for place in places] == sorted(cosines, reverse=True)[: request.k]
        for place, passage in zip(places, completion.passages, strict=True):
            assert passage.score == pytest.approx(cosines[place], abs=2e-4)
            assert passage.score == round(passage.score, 6)
            assert passage.text == passage.title == passage.document == ""


@pytest.mark.model
def test_of_equal_texts_the_first_comes_first(service: RetrievalService) -> None:
    (completion,) = answers(service, [Nearest("Who wrote Hamlet?", TEXTS, 2)])
    assert completion.passages == (Passage("0", "", "", "", 1.0), Passage("6", "", "", "", 1.0))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.integers(1, 13), st.integers(0, 5))
def test_hubs_are_those_that_most_others_are_near_to(kinds: list[int], k: int, query: int) -> None:
    texts = tuple(f"{'x' * kind} {place}" for place, kind in enumerate(kinds))
    found = NearestTexts(Angles).find(texts, [Nearest("x" * query, texts, k, "hubs_first")])[0]
    vectors = Angles().embed(texts).astype(np.float64)

    def near(vector: np.ndarray[Any, Any], but: int, count: int) -> list[int]:
        order = sorted((place for place in range(len(texts)) if place != but),
                       key=lambda place: (-round(float(vectors[place] @ vector), 6), place))  # fmt: skip
        return order[:count]

    counts = [sum(place in near(vectors[other], other, k) for other in range(len(texts)) if other != place)
              for place in range(len(texts))]  # fmt: skip
    nearest = near(Angles().embed(["x" * query])[0].astype(np.float64), -1, k)
    assert [int(passage.id) for passage in found] == sorted(nearest, key=lambda place: (-counts[place], place))


class Angles:
    """An embedder of directions in a plane by the number of x in a text, in steps whose cosines are far apart."""

    name, sha256, dimension, longest = "angles", "a" * 64, 2, 100

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], report: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.embedded += texts
        angles = np.array([0.1 * text.count("x") ** 1.5 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return []


def test_a_text_is_embedded_once_and_queries_together() -> None:
    embedder = Angles()
    nearest = NearestTexts(lambda: embedder)
    texts = ("x", "xx", "x")
    for _ in range(2):
        found = nearest.find(texts, [Nearest("x", texts, 2), Nearest("xxx", texts, 2), Nearest("xxx", texts, 1)])
    assert embedder.embedded == ["x", "xx", "xxx"]
    assert [[passage.id for passage in passages] for passages in found] == [["0", "2"], ["1", "0"], ["1"]]
    nearest.find(("xx", "xxx", "xxxx"), [Nearest("x", ("xx", "xxx", "xxxx"), 1)])
    assert embedder.embedded == ["x", "xx", "xxx", "xxxx"], "another pool of texts that are known"


def test_no_texts_have_no_nearest() -> None:
    assert NearestTexts(Angles).find((), [Nearest("x", (), 3, "hubs_first")]) == [()]


@pytest.mark.model
def test_a_call_is_keyed_by_the_pool_the_query_the_order_and_the_weights(
    service: RetrievalService, embedder: Embedder
) -> None:
    first = Nearest("Where?", TEXTS, 3)
    others = [
        replace(first, query="Who?"),
        replace(first, texts=TEXTS[::-1]),
        replace(first, k=4),
        replace(first, order="hubs_first"),
    ]
    contents = [service.prepare(request).content for request in (first, *others)]
    assert all(content != contents[0] for content in contents[1:])
    assert TEXTS[0] not in str(contents[0])
    assert contents[0]["embedder"] == embedder.sha256
    assert service.prepare(Nearest("Where?", tuple(TEXTS), 3)).content == contents[0]


def test_preparing_loads_no_model(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.records import Nearest; "
        "from engine.retrieval.service import RetrievalService; "
        "RetrievalService(Path()).prepare(Nearest('a', ('b',), 1)); "
        "print(sorted({'torch', 'sentence_transformers', 'faiss'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ── the layer ────────────────────────────────────────────────────────────────────────────────────


class Seen:
    """A retrieval service that notes what it is asked and answers as another one does, or not at all."""

    name, identity = "seen", "seen 1"

    def __init__(self, inner: RetrievalService, fails: bool = False) -> None:
        self._inner, self._fails = inner, fails
        self.requests: list[Nearest] = []

    def prepare(self, request: Request) -> Prepared:
        return self._inner.prepare(request)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        self.requests += [prepared.request for _, prepared in asked if isinstance(prepared.request, Nearest)]
        if self._fails:
            for key, _ in asked:
                reply(key, Completion(error="no embedder today"))
        else:
            self._inner.submit(asked, reply)

    def cancel(self, keys: Collection[str] | None = None) -> None: ...

    def close(self) -> None: ...


def shown(service: RetrievalService, node: Predict, question: str) -> list[str]:
    """The questions that a prompt shows, in their order."""
    prompts: list[str] = []

    def script(request: Request, prompt: str) -> list[float]:
        prompts.append(prompt)
        return asked(request, prompt)

    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"retrieval": Seen(service)}) as runtime:
        (trace,) = runtime.run(forward(Program(node(Input("question"))), [Example("1", {"question": question})]))
    assert trace.prediction.error is None
    assert prompts[0].endswith(f"\n\nQuestion: {question}\nKind:")
    lines = [line.removeprefix("Question: ") for line in prompts[0].split("\n") if line.startswith("Question: ")]
    assert [TEXTS[int(passage.id)] for passage in trace.steps[0].passages] == lines[:-1]
    return lines[:-1]


@pytest.mark.model
def test_a_prompt_shows_the_nearest_the_nearest_last(service: RetrievalService) -> None:
    found = shown(service, layer(nearest=2), "How many arms has an octopus?")
    assert found == ["How many moons has Mars?", "How many legs has a spider?"]


@pytest.mark.model
def test_an_example_is_never_shown_itself_even_where_its_row_repeats(service: RetrievalService) -> None:
    for order in ("nearest_last", "hubs_first"):
        for text in TEXTS:
            found = shown(service, layer(nearest=3, order=order), text)
            assert text not in found
            assert len(found) == 3
    assert len(shown(service, layer(nearest=64), "Who wrote Hamlet?")) == 6
    assert shown(service, layer(demos=(POOL[0], POOL[6])), "Who wrote Hamlet?") == []


@pytest.mark.model
def test_hubs_first_shows_the_same_demonstrations_in_an_order_that_all_prompts_share(service: RetrievalService) -> None:
    pool = layer(demos=POOL[:6])
    hubs = replace(pool, order="hubs_first")
    everything = shown(service, replace(hubs, nearest=6), "Which?")
    for question in ("Who composed Fidelio?", "Where is Rome?", "How many toes has a cat?", "Who lives in Oslo?"):
        assert shown(service, replace(hubs, nearest=6), question) == everything
        assert sorted(shown(service, hubs, question)) == sorted(shown(service, pool, question))


@pytest.mark.model
def test_several_inputs_are_embedded_as_lines(service: RetrievalService) -> None:
    demo = Demo({"title": "a", "text": "b"}, {"kind": "person"})
    seen = Seen(service)
    step = done(layer(demos=(demo,), nearest=1), Script({"": lambda _: [0.0, 1.0, 0.0]}), {"retrieval": seen},
                title="c", text="d")  # fmt: skip
    assert step.outputs == {"kind": "person"}
    assert seen.requests == [Nearest("c\nd", ("a\nb",), 1)]


@pytest.mark.model
def test_open_text_has_nearest_demonstrations_too(service: RetrievalService) -> None:
    node = Predict("Answer.", output="kind", demos=POOL, nearest=2, style="plain")
    step = done(node, Script({"": "place"}), {"retrieval": service}, question="Where is Rome?")
    assert step.outputs == {"kind": "place"}
    assert len(step.passages) == 2
    assert len(step.calls) == 2


@pytest.mark.model
def test_a_service_that_fails_is_an_error_of_the_step(service: RetrievalService) -> None:
    step = done(layer(), Script({}), {"retrieval": Seen(service, fails=True)}, question="Where is Rome?")
    assert step.error == "no embedder today"
    assert step.outputs == {}


def test_all_demos_are_shown_without_asking_where_there_is_no_pool() -> None:
    step = done(layer(nearest=0), Script({"": asked_of}), question="Where is Rome?")
    assert step.outputs == {"kind": "place"}
    assert step.passages == ()
    assert done(layer(demos=()), Script({"": asked_of}), question="Where is Rome?").error is None


def asked_of(request: Score) -> list[float]:
    return asked(request, getattr(request.prompt, "text", ""))


def test_a_pool_stands_in_the_summary_the_parameters_and_what_is_needed_outside() -> None:
    big = layer(demos=tuple(replace(POOL[0], inputs={"question": str(n)}) for n in range(1000)), nearest=8)
    assert big.summary == "3 choices · plain · 8 nearest of 1,000 demos"
    parameters = big.parameters(("question",))
    assert parameters["nearest"] == Number(8, 0, 64, whole=True)
    assert parameters["order"] == Choice("nearest_last", ("nearest_last", "hubs_first"))
    assert big.outside == (Outside("embedder", DEFAULT_EMBEDDER),)
    plain = layer(nearest=0)
    assert plain.parameters(("question",))["nearest"] == Number(0, 0, 64, whole=True)
    assert "order" not in plain.parameters(("question",))
    assert plain.outside == ()
    assert plain.summary == "3 choices · plain · 8 demos"
    assert EMBEDDER == DEFAULT_EMBEDDER


def test_a_set_may_become_a_pool_in_one_edit_and_a_pool_a_set_again() -> None:
    start = Program(layer(nearest=0)(Input("question")))
    pool = start.replace({"kind.order": "hubs_first", "kind.nearest": 4})
    assert pool.node("kind").layer == layer(nearest=4, order="hubs_first")
    assert pool.replace({"kind.nearest": 0}).fingerprint == start.fingerprint
    for edits in ({"kind.order": "hubs_first"}, {"kind.nearest": 0, "kind.order": "hubs_first"}):
        with pytest.raises(ContentError, match=r"no parameter 'kind\.order'"):
            start.replace(edits)


def test_only_as_many_demos_cost_as_are_shown() -> None:
    demos = tuple(Demo({"question": "x" * 4 * n}, {"kind": "place"}) for n in range(1, 11))
    costs = [layer(demos=demos, nearest=k).cost({"question": 7}).read for k in (0, 2, 3)]
    assert costs[1] == layer(demos=demos[-2:], nearest=0).cost({"question": 7}).read
    assert costs[0] - costs[1] == sum(range(1, 9)) + 8 * 2
    assert costs[2] - costs[1] == 8 + 2


@pytest.mark.parametrize("changes", [{}, {"order": "hubs_first"}, {"nearest": 0}, {"demos": ()}])
def test_a_pool_is_written_and_read_back(changes: dict[str, Any], tmp_path: Path) -> None:
    node = layer(**changes)
    round_trip(node, "question")
    saved = SavedProgram("pool", "scripted", "", Program(node(Input("question"))))
    saved.save(tmp_path / "program.yaml")
    assert load_saved(tmp_path / "program.yaml") == saved


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"nearest": 65}, "nearest", "nearest: expected a number from 0 to 64, found 65"),
        ({"nearest": 1.5}, "nearest", "nearest: expected a whole number, found 1.5"),
        ({"nearest": "all"}, "nearest", "nearest: expected a number, found 'all'"),
        ({"nearest": 2, "order": "random"}, "order", "order: expected one of nearest_last, hubs_first, found 'random'"),
        ({"order": "hubs_first"}, "order", "order has no meaning with all demos shown: give nearest"),
        ({"neareast": 2}, "neareast", "unknown key 'neareast': did you mean 'nearest'?"),
        ({"demos": "train"}, "demos", "demos: train needs a task file with train rows, and a node to stand in"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(ContentError) as caught:
        Predict.from_mapping({"instruction": "Classify.", **settings}, "kind", ("question",))
    assert str(caught.value) == says
    assert caught.value.path == (path,)


def test_order_is_checked_in_python_too() -> None:
    with pytest.raises(ContentError, match="expected nearest_last or hubs_first, found 'best'"):
        layer(order="best")
    with pytest.raises(ContentError, match="order has no meaning with all demos shown"):
        layer(nearest=0, order="hubs_first")


# ── in a task file ───────────────────────────────────────────────────────────────────────────────


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "layer": "predict", "inputs": ["question"], "instruction": "Sort.", "choices": "auto", "demos": "train",
        "nearest": 4, **changes,
    }  # fmt: skip


def declared(path: Path) -> Program:
    task = load_task(path)
    return declared_program(task, load_splits(task))


@pytest.mark.parametrize("full", [False, True])
def test_demos_train_fills_the_pool_with_train_rows(make_task: TaskMaker, full: bool) -> None:
    nodes = {"kind": spec()}
    path = make_task(program={"inputs": ["question"], "nodes": nodes} if full else nodes)
    splits = load_splits(load_task(path))
    node = declared(path).output_node.layer
    assert isinstance(node, Predict)
    assert node.nearest == 4
    assert [demo.inputs["question"] for demo in node.demos] == [row.inputs["question"] for row in splits.train]
    assert [demo.outputs["kind"] for demo in node.demos] == [row.target for row in splits.train]
    judged = {row.inputs["question"] for row in splits.dev}
    assert not judged & {demo.inputs["question"] for demo in node.demos}


def test_a_row_whose_answer_is_no_value_of_the_output_is_left_out(make_task: TaskMaker) -> None:
    rows = [{"question": f"How many {n}?", "label": "many" if n % 3 == 0 else f"{n}"} for n in range(9)]
    program = {"kind": {**spec(outputs={"count": "int"}, inputs={"ask": "question"}), "choices": None}}
    program["kind"].pop("choices")
    node = declared(make_task(rows, program=program)).output_node.layer
    assert isinstance(node, Predict)
    assert [demo.outputs["count"] for demo in node.demos] == ["1", "2", "4", "5"]
    assert all(set(demo.inputs) == {"ask"} for demo in node.demos)


@pytest.mark.parametrize(
    ("program", "data", "place", "says"),
    [
        ({"kind": spec(nearest=0)}, {}, ("kind", "demos"), "needs nearest: K, how many of the rows a prompt shows"),
        (
            {"draft": {"layer": "predict", "inputs": ["question"], "instruction": "Draft."},
             "kind": spec(inputs=["question", "draft"])},
            {}, ("kind", "demos"), "is for nodes that read program inputs alone; 'kind' reads draft.draft",
        ),
        (
            {"kind": {key: value for key, value in spec(outputs=["why", "kind"]).items() if key != "choices"}},
            {}, ("kind", "demos"), "is for nodes with one output; 'kind' has why, kind",
        ),
        (
            {"kind": spec(choices=["a", "b"])}, {"target": None}, ("kind", "demos"),
            "needs data.target, the answers that the rows give",
        ),
        (
            {"kind": {key: value for key, value in spec(outputs={"kind": "int"}).items() if key != "choices"}},
            {}, ("kind", "demos"), "found no answer in 8 rows that 'kind' could give",
        ),
        ({"kind": {**spec(), "demos": []}}, {}, ("kind", "nearest"), "nearest: 4 of no demos; write demos: train"),
    ],
)  # fmt: skip
def test_a_mistake_about_a_pool_is_named_by_file_and_line(
    make_task: TaskMaker, program: dict[str, Any], data: dict[str, Any], place: tuple[str, ...], says: str
) -> None:
    path = make_task(program=program)
    task = yaml.safe_load(path.read_text("utf-8"))
    task["data"] = {key: value for key, value in {**task["data"], **data}.items() if value is not None}
    path.write_text(yaml.safe_dump(task, sort_keys=False), "utf-8")
    with pytest.raises(ContentError) as caught:
        declared(path)
    assert str(caught.value).startswith(f"{path}:{load_task(path).lines['program', *place]}: ")
    assert says in str(caught.value)


def test_a_pool_too_large_to_be_saved_is_refused(make_task: TaskMaker) -> None:
    rows = [{"question": f"{n} " + "x" * 70_000, "label": "ab"[n % 2]} for n in range(60)]
    with pytest.raises(ContentError, match=r"rows of 2,8\d\d,\d\d\d bytes; .* give data.train a limit"):
        declared(make_task(rows, program={"kind": spec()}))


# ── in a run ─────────────────────────────────────────────────────────────────────────────────────

TRAIN = [
    Example(str(n), {"question": text}, (label,)) for n, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
]


@pytest.mark.model
def test_train_rows_of_a_pool_are_fitted_on_without_being_shown_themselves(service: RetrievalService) -> None:
    program = Program(layer(nearest=1)(Input("question")))
    assert unseen(program, TRAIN) == TRAIN
    assert unseen(Program(layer(nearest=0)(Input("question"))), TRAIN) == []
    with runtime_with(service) as runtime:
        traces = runtime.run(forward(program, TRAIN, METRICS["exact_match"]))
        fitted = runtime.run(calibrated(program, TRAIN, Objective(METRICS["exact_match"])))
    for trace in traces:
        (passage,) = trace.steps[0].passages
        assert TEXTS[int(passage.id)] != trace.example.inputs["question"]
        assert trace.prediction.text == LABELS[int(passage.id)]
    assert len(fitted.program.parameters["kind.bias"].value) == 3
    assert fitted.loss <= mean_loss(traces)


@pytest.mark.model
def test_a_pool_has_its_bias_fitted_and_sets_replace_it(service: RetrievalService) -> None:
    program = Program(layer(nearest=1)(Input("question")))
    history = history_of(program, TRAIN, allowance_calls=200)
    rng = np.random.default_rng(0)
    with runtime_with(service) as runtime:
        sets = runtime.run(DemosProposer().propose(history, rng))
        (proposal,) = runtime.run(BiasProposer().propose(history, rng))
        settings = runtime.run(SettingsProposer().propose(history, rng))
    assert sets
    assert all(found.edits["kind.nearest"] == 0 for found in sets)
    assert proposal.note == f"bias fitted on {len(TRAIN)} train examples"
    assert {"kind.order": "hubs_first"} in [found.edits for found in settings]
    assert isinstance(program.parameters["kind.demos"], Demos)


@pytest.mark.model
def test_a_warm_store_answers_without_an_embedder(tmp_path: Path, service: RetrievalService) -> None:
    program = Program(layer(nearest=2)(Input("question")))
    first = run_in(tmp_path / "store.db", service, program)
    cold = RetrievalService(tmp_path)
    seen = Seen(cold)
    seen.identity = service.identity
    with Runtime({"task": ScriptedBackend(asked)}, Store(tmp_path / "store.db"), {"retrieval": seen}) as runtime:
        again = runtime.run(forward(program, TRAIN, METRICS["exact_match"]))
    assert again == first
    assert seen.requests == []


def run_in(path: Path, service: RetrievalService, program: Program) -> list[Any]:
    inner = Seen(service)
    inner.identity = service.identity
    with Runtime({"task": ScriptedBackend(asked)}, Store(path), {"retrieval": inner}) as runtime:
        return runtime.run(forward(program, TRAIN, METRICS["exact_match"]))


def runtime_with(service: RetrievalService) -> Runtime:
    return Runtime({"task": ScriptedBackend(asked)}, Store(":memory:"), {"retrieval": Seen(service)})


@pytest.mark.model
def test_with_a_model_the_program_of_a_task_file_answers_and_is_shown_what_is_near(make_task: TaskMaker) -> None:
    from engine import open_runtime

    rows = [
        {"question": text, "label": label}
        for text, label in zip(TEXTS[:6] + TEXTS[7:], LABELS[:6] + LABELS[7:], strict=True)
    ]
    path = make_task(rows, program={"kind": spec(style="plain", nearest=2)})
    program, splits = declared(path), load_splits(load_task(path))
    with open_runtime("smollm2-135m", store=":memory:", folder=path.parent) as runtime:
        traces = runtime.run(forward(program, [*splits.train, *splits.dev], METRICS["exact_match"]))
    for trace in traces:
        assert trace.prediction.error is None
        assert len(trace.steps[0].passages) == 2
        demos = program.parameters["kind.demos"].value
        assert all(demos[int(passage.id)].inputs != trace.example.inputs for passage in trace.steps[0].passages)
        assert trace.prediction.text in ("number", "person", "place")
