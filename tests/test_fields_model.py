"""Typed outputs on the embedded model: whatever it would rather say, what it writes parses."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_gbnf import Gbnf
from test_fields import PATTERNS, TYPES

from engine.errors import ContentError
from engine.forward import example_from, forward
from engine.inference.local.backend import LlamaBackend
from engine.inference.local.llama import LlamaModel
from engine.inference.models import find_model
from engine.inference.runtime import Runtime
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.program.prompt import reply_grammar
from engine.program.typed.fields import as_fields
from engine.program.typed.grammar import MAX_ELEMENTS, Exactly, OneOf, Pattern, Repeat, Then, gbnf
from engine.records import Trace
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[1]
MESSAGES = [
    json.loads(line)["message"] for line in (ROOT / "engine/demo/test.jsonl").read_text("utf-8").splitlines()[:2]
]
MESSAGES += ['He said "no"\\\n{"a": [1, 2', "Ünïcödé 😀 日本語のメッセージ"]
SHORT = {"type": "string", "maxLength": 8}
ITEM = {"type": "object", "properties": {"of": SHORT, "count": {"type": "integer", "minimum": 1, "maximum": 20}}}
BOUNDED: dict[str, Any] = {
    **{name: TYPES[name] for name in ("int", "float", "bool", "choices", "ints", "floats", "bools", "kinds", "number")},
    "regex": {"regex": r"[A-Z]{3}-[0-9]{1,4}( \w{1,6}|[.]|[^a-z,]){0,3}"},
    "texts": {"schema": {"type": "array", "items": SHORT, "maxItems": 3}},
    "schema": {
        "schema": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["new", 'o"ld', 3, None]},
                "items": {"type": "array", "items": ITEM, "minItems": 1, "maxItems": 2},
                "note": {"anyOf": [SHORT, {"type": "null"}]},
                "paid": {"type": "boolean"},
            },
            "required": ["items", "paid"],
        }
    },
}
INSTRUCTION = "Read the customer's message and fill in what is asked for."


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    backend = LlamaBackend(
        find_model("smollm2-135m", ROOT).path, "embedded", "smollm2-135m", RuntimeSettings(threads=2, context=8192)
    )
    with Runtime({"task": backend}, Store(tmp_path_factory.mktemp("fields") / "store.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    opened = LlamaModel(find_model("smollm2-135m", ROOT).path)
    yield opened
    opened.close()


def traces(runtime: Runtime, outputs: Any, **settings: Any) -> list[Trace]:
    program = Program(Predict(INSTRUCTION, output=outputs, **settings)(Input("message"), name="node"))
    return runtime.run(forward(program, [example_from({"message": text}) for text in MESSAGES]), run="test")


@pytest.mark.parametrize(("temperature", "style"), [(0.0, "plain"), (1.0, "chat")])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_model_under_the_grammar_of_a_type_always_gives_a_value_of_it(
    runtime: Runtime, name: str, temperature: float, style: str
) -> None:
    (field,) = as_fields({"answer": BOUNDED[name]})
    for trace in traces(runtime, {"answer": BOUNDED[name]}, style=style, temperature=temperature, max_tokens=400):
        assert trace.prediction.error is None
        assert field.canonical(trace.prediction.text) == trace.prediction.text


@pytest.mark.parametrize(("temperature", "style"), [(0.0, "chat"), (1.0, "plain")])
def test_several_fields_come_in_their_order_after_free_text(runtime: Runtime, temperature: float, style: str) -> None:
    outputs = {
        "reasoning": "text",
        "amount": "float",
        "paid": "bool",
        "team": {"choices": ["billing", "shipping"]},
        "code": {"regex": "[A-Z]{3}-[0-9]{1,4}"},
    }
    for trace in traces(runtime, outputs, style=style, temperature=temperature, max_tokens=400):
        if "日本語" in trace.example.inputs["message"] and trace.prediction.error:
            assert trace.prediction.error == "node: unparsed: the reply was truncated at 400 tokens"
            continue  # a character of that reasoning takes several tokens
        assert trace.prediction.error is None
        fields = {field.name: trace.prediction.outputs[f"node.{field.name}"] for field in as_fields(outputs)}
        assert fields["paid"] in ("true", "false")
        assert fields["team"] in ("billing", "shipping")
        assert "\n" not in fields["reasoning"]
        assert repr(float(fields["amount"])) == fields["amount"]


def test_a_reply_that_its_cap_cuts_off_is_an_error_of_its_execution_alone(runtime: Runtime) -> None:
    for trace in traces(runtime, {"reasoning": "text", "paid": "bool"}, max_tokens=3):
        assert trace.prediction.error == "node: unparsed: the reply was truncated at 3 tokens"


# ── llama.cpp reads what is written here as it was meant ─────────────────────────────────────────


def admits(model: LlamaModel, grammar: str, text: str) -> bool:
    """Whether llama.cpp takes the whole text, token by token, and its end after that."""
    compiled = model.grammar(grammar)
    try:
        for token in model.tokenize(text, special=False):
            if not compiled.allows(token):
                return False
            compiled.accept(token)
        return compiled.allows(model.eos)
    finally:
        compiled.close()


def writable(model: LlamaModel, text: str) -> bool:
    """Whether the vocabulary has tokens for all of it: SmolLM2's lacks some bytes of rare characters."""
    return b"".join(map(model.piece, model.tokenize(text, special=False))) == text.encode()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("chat", [True, False])
def test_llama_cpp_admits_what_an_independent_reader_samples(model: LlamaModel, name: str, chat: bool) -> None:
    grammar = reply_grammar(as_fields({"kind": "bool", "the_answer": TYPES[name]}), chat)
    assert grammar
    reader = Gbnf(grammar)
    for seed in range(40):
        text = reader.sample(random.Random(seed))
        if not writable(model, text):
            continue
        assert admits(model, grammar, text), text
        changed = text.replace("answer", "Answer")
        assert admits(model, grammar, changed) == reader.admits(changed)


@given(PATTERNS, st.lists(st.text("abc", max_size=7), max_size=4))
def test_llama_cpp_and_the_own_matcher_agree(model: LlamaModel, pattern: Pattern, texts: list[str]) -> None:
    try:
        grammar = gbnf(Then((Exactly("c"), pattern)))
    except ContentError:
        return
    reader = Gbnf(grammar)
    for text in texts:
        assert admits(model, grammar, "c" + text) == reader.admits("c" + text)


def test_the_largest_grammar_compiles_in_a_moment(model: LlamaModel) -> None:
    count = MAX_ELEMENTS // 6100
    grammar = gbnf(Then(tuple(Repeat(OneOf(((65 + n, 66 + n),)), 0, 2000) for n in range(count))))
    started = time.perf_counter()
    model.grammar(grammar).close()
    assert time.perf_counter() - started < 1.0
    assert admits(model, grammar, "A" * 2000 + "B" * 40)
