"""Tools: every declaration is read or refused by its place, every call of the grammar is read back, every call made."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_gbnf import Gbnf

from engine import open_runtime
from engine.errors import ContentError, UsageError
from engine.flows import ask, together
from engine.program.tools.calls import call_grammar, call_pattern, read_call, written_call
from engine.program.tools.spec import ToolSpec, described, read_tools
from engine.program.typed.grammar import matches
from engine.program.typed.json_values import compact
from engine.records import Chat, Generate, Message
from engine.tasks.answers import same_value
from engine.tasks.schema import RuntimeSettings
from engine.tasks.tool_calls import read_calls, same_calls
from engine.tasks.usercode import load_function
from engine.tools.functions import call_tool, tool_declaration

BFCL = Path(__file__).parents[2] / "shared" / "data" / "bfcl_simple"
needs_bfcl = pytest.mark.skipif(not BFCL.is_dir(), reason="needs the public set bfcl_simple in ../shared/data")

WEATHER = {
    "name": "get_weather",
    "description": "The weather\n  in a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city."},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
        "required": ["city"],
    },
}
STOP = {
    "type": "dict",
    "properties": {"at": {"type": "tuple", "items": {"type": "float"}}, "note": {"type": ["string", "null"]}},
    "required": ["at"],
}
TRIP: dict[str, Any] = {
    "name": "trips.plan",
    "parameters": {
        "type": "dict",
        "properties": {
            "stops": {"type": "array", "items": STOP},
            "budget": {"type": "float", "minimum": 0, "format": "currency"},
            "labels": {"type": "dict", "description": "Any labels."},
            "extra": {"type": "any"},
            "by_car": {"type": "boolean", "optional": True, "default": False},
        },
        "required": ["stops", "extra"],
    },
}  # fmt: skip
SPECS = read_tools([{"type": "function", "function": WEATHER}, TRIP, {"name": "ping"}])


def complaint(build: Callable[[], Any]) -> tuple[str, tuple[str | int, ...]]:
    """What is said, and the place it is said of."""
    with pytest.raises(ContentError) as caught:
        build()
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.path


# ── declarations ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "function", "function": {**WEATHER, "strict": True}},
        WEATHER,
        {"title": "Weather", **{("inputSchema" if key == "parameters" else key): WEATHER[key] for key in WEATHER}},
        {("input_schema" if key == "parameters" else key): WEATHER[key] for key in WEATHER},
    ],
)
def test_the_common_declarations_of_a_tool_are_read_alike(declared: Any) -> None:
    spec = ToolSpec.from_schema(declared)
    assert spec == SPECS[0]
    assert hash(spec) == hash(SPECS[0])
    assert spec.parameters == WEATHER["parameters"]
    assert read_tools(json.dumps([declared])) == (spec,)


def test_a_description_may_be_absent() -> None:
    assert ToolSpec.from_schema({"name": "f", "description": None}) == ToolSpec.from_schema({"name": "f"})


def test_a_specification_survives_being_written_as_plain_data() -> None:
    for spec in SPECS:
        assert ToolSpec.from_schema(json.loads(json.dumps(spec.to_mapping()))) == spec


def test_signatures_are_one_readable_line() -> None:
    assert [spec.signature for spec in SPECS] == [
        'get_weather(city: str, unit: "C" | "F" = "C", days?: int)',
        "trips.plan(stops: list[{at: list[float], note?: str | null}], budget?: float, labels?: dict[str, any], "
        "extra: any, by_car: bool = false)",
        "ping()",
    ]


def test_the_text_for_a_prompt_lists_every_tool_with_what_is_said_of_it() -> None:
    assert described(SPECS[:1]) == (
        '- get_weather(city: str, unit: "C" | "F" = "C", days?: int): The weather in a city.\n'
        "    city: Name of the city."
    )
    assert described(SPECS).splitlines()[3:] == ["    labels: Any labels.", "- ping()"]


def test_references_and_constants_are_shown_as_what_they_stand_for() -> None:
    schema = {
        "type": "object",
        "$defs": {"level": {"enum": [1, 2, None]}},
        "properties": {"at": {"$ref": "#/$defs/level"}, "to": {"oneOf": [{"const": "x"}, {"type": "BOOLEAN"}]}},
    }
    assert (
        ToolSpec.from_schema({"name": "f", "parameters": schema}).signature == 'f(at?: 1 | 2 | null, to?: "x" | bool)'
    )


def of(schema: Any, **more: Any) -> dict[str, Any]:
    """A tool with one parameter `x` of this schema."""
    return {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}, **more}}


X = ("parameters", "properties", "x")


@pytest.mark.parametrize(
    ("declared", "says", "path"),
    [
        ("f", "expected a tool (a mapping with a name and parameters), found 'f'", ()),
        ({}, "a tool without a name", ()),
        ({"type": "function", "function": []}, "function: expected a mapping with a name", ("function",)),
        ({"function": {"name": "a b"}}, "tool 'a b': name: expected up to 100 letters", ("function", "name")),
        ({"name": 3}, "tool 3: name: expected up to 100 letters", ("name",)),
        ({"name": "f", "description": []}, "tool 'f': description: expected text, found []", ("description",)),
        ({"name": "f", "description": 3}, "tool 'f': description: expected text, found 3", ("description",)),
        ({"name": "f", "paramters": {}}, "unknown key 'paramters' of a tool: did you mean 'param", ("paramters",)),
        ({"name": "f", "parameters": []}, "tool 'f': parameters: expected a schema", ("parameters",)),
        (
            {"name": "f", "inputSchema": {"type": "array"}},
            "tool 'f': inputSchema.type: expected an object with the arguments as its properties, found type 'array'",
            ("inputSchema", "type"),
        ),
        (
            {"name": "f", "parameters": {"additionalProperties": {"type": "string"}}},
            "tool 'f': parameters: expected an object with the arguments",
            ("parameters",),
        ),
        (of({"type": "strin"}), "tool 'f': parameters.properties.x.type: unknown type 'strin': did you", (*X, "type")),
        (of({"type": "int", "oneof": 2}), "tool 'f': parameters.properties.x.oneof: unsupported", (*X, "oneof")),
        (of("string"), "tool 'f': parameters.properties.x: expected a schema", X),
        (of({"type": "list", "items": []}), "tool 'f': parameters.properties.x.items: expected a sch", (*X, "items")),
        (
            of({"type": "dict", "properties": {"y": {"type": "hash"}}}),
            "tool 'f': parameters.properties.x.properties.y.type: unknown type 'hash'",
            (*X, "properties", "y", "type"),
        ),
        (
            of({"type": "string"}, required=["y"]),
            "tool 'f': parameters.required: required names 'y', which is no property",
            ("parameters", "required"),
        ),
        (of({"enum": ["a", {1}]}), "tool 'f': parameters: expected plain JSON data", ("parameters",)),
        (of({"type": "string", "default": math.nan}), "tool 'f': parameters: expected plain JSON", ("parameters",)),
    ],
)  # fmt: skip
def test_a_declaration_that_is_wrong_is_refused_by_its_place(
    declared: Any, says: str, path: tuple[str | int, ...]
) -> None:
    said, place = complaint(lambda: ToolSpec.from_schema(declared))
    assert said.startswith(says)
    assert place == path
    assert complaint(lambda: read_tools([WEATHER, declared]))[1] == (1, *place)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    assert "nested deeper than 24" in complaint(lambda: ToolSpec.from_schema(of(schema)))[0]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ([], "expected a list of at least one tool, found []"),
        (WEATHER, "expected a list of at least one tool, found {"),
        ("[{", "expected a list of tools as JSON, found '[{'"),
        ("[" * 100_000, "expected a list of tools as JSON, found "),
        ([WEATHER, WEATHER], "tool 'get_weather' stands twice"),
    ],
)
def test_what_is_no_list_of_tools_is_refused(declared: Any, says: str) -> None:
    assert complaint(lambda: read_tools(declared))[0].startswith(says)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3000) | st.sampled_from(["string", "dict", "any", "f", "tuple", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "function", "name", "parameters", "properties", "items", "required", "additionalProperties",
                 "enum", "anyOf", "nullable", "optional", "$defs", "$ref", "minimum", "default", "description"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=14,
)  # fmt: skip


@given(JUNK, JUNK)
def test_any_declaration_is_read_or_refused_and_what_is_read_has_a_grammar(declared: Any, schema: Any) -> None:
    for one in (declared, {"name": "f", "parameters": schema}, of(schema)):
        try:
            spec = ToolSpec.from_schema(one)
        except ContentError:
            continue
        assert ToolSpec.from_schema(spec.to_mapping()) == spec
        assert spec.signature.startswith(f"{spec.name}(")
        name, arguments = read_call(Gbnf(call_grammar([spec])).sample(random.Random(1)), [spec])
        assert read_call(written_call(name, arguments), [spec]) == (name, arguments)


# ── calls ────────────────────────────────────────────────────────────────────────────────────────

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from('\n\t"\\é'), max_size=9)
PLAIN_SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([{"type": name} for name in ("string", "integer", "float", "bool", "null", "any", "dict")]),
    st.lists(TEXTS | st.integers(-9, 9), min_size=1, max_size=3).map(lambda values: {"enum": values}),
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).flatmap(
        lambda pair: st.sampled_from(
            [{"type": name, "minimum": pair[0], "maximum": pair[0] + pair[1]} for name in ("integer", "number")]
        )
    ),
)


def objects(inner: st.SearchStrategy[dict[str, Any]], least: int = 1) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of objects with properties of these schemas, some of them required."""
    return st.dictionaries(st.sampled_from(["a", "b c", 'd"', "é"]), inner, min_size=least, max_size=3).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()).map(
            lambda required: {"type": "dict", "properties": properties, "required": sorted(required)}
        )
    )


SCHEMAS = st.recursive(
    PLAIN_SCHEMAS,
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(lambda values: {"type": "dict", "additionalProperties": values}, inner)
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=2))
        | objects(inner)
    ),
    max_leaves=6,
)


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, its properties in their order: an independent reading of what schemas mean."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(option) for option in schema["anyOf"]])
    match schema["type"]:
        case "string":
            return TEXTS
        case "integer":
            return st.integers(schema.get("minimum", -(10**15)), schema.get("maximum", 10**15))
        case "float" | "number":
            low, high = schema.get("minimum", -1000), schema.get("maximum", 1000)
            return st.integers(10 * low, 10 * high).map(lambda n: n / 10)
        case "bool":
            return st.booleans()
        case "null":
            return st.none()
        case "any":
            return TEXTS | st.booleans() | st.none() | st.integers(-9, 9) | st.lists(TEXTS | st.booleans(), max_size=4)
        case "array":
            return st.lists(values(schema["items"]), max_size=4)
    if "properties" not in schema:
        inner = schema.get("additionalProperties", {"type": "any"})
        return st.dictionaries(TEXTS.filter(bool), values(inner), max_size=3)
    return st.fixed_dictionaries(
        {name: values(inner) for name, inner in schema["properties"].items() if name in schema["required"]},
        optional={
            name: values(inner) for name, inner in schema["properties"].items() if name not in schema["required"]
        },
    ).map(lambda drawn: {name: drawn[name] for name in schema["properties"] if name in drawn})


@given(objects(SCHEMAS, least=0), st.data())
def test_a_call_with_values_of_the_schema_is_admitted_and_read_back_the_same(
    schema: dict[str, Any], data: st.DataObject
) -> None:
    specs = read_tools([{"name": "tool", "parameters": schema}, WEATHER])
    arguments = data.draw(values(schema))
    grammar = Gbnf(call_grammar(specs))
    for text in (written_call("tool", arguments), compact({"name": "tool", "arguments": arguments})):
        assert grammar.admits(text)
        name, read = read_call(text, specs)
        assert name == "tool"
        assert same_value(read, arguments)
        assert list(read) == list(arguments)
    sampled = grammar.sample(data.draw(st.integers(0, 2**32).map(random.Random)))
    name, read = read_call(sampled, specs)
    assert read_call(written_call(name, read), specs) == (name, read)


def test_a_grammar_admits_the_calls_of_its_tools_and_nothing_else() -> None:
    grammar = Gbnf(call_grammar(SPECS))
    for text, good in [
        ('{"name": "get_weather", "arguments": {"city": "Oslo"}}', True),
        ('{"name":"get_weather","arguments":{"city":"Oslo","days":14}}', True),
        ('{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "F", "days": 1}}', True),
        ('{"name": "ping", "arguments": {}}', True),
        ('{"name": "ping", "arguments": {"city": "Oslo"}}', False),
        ('{"name": "get_weather", "arguments": {}}', False),
        ('{"name": "get_weather", "arguments": {"city": "Oslo", "days": 15}}', False),
        ('{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "K"}}', False),
        ('{"name": "get_weather", "arguments": {"unit": "C", "city": "Oslo"}}', False),
        ('{"name": "pong", "arguments": {}}', False),
        ('{"arguments": {}, "name": "ping"}', False),
        ('{"name": "ping", "arguments": {}} ', False),
        ("", False),
        ('{"name": "get_weather", "arguments": {"city": "' + "x" * 200 + '"}}', True),
        ('{"name": "get_weather", "arguments": {"city": "' + "x" * 201 + '"}}', False),
    ]:
        assert grammar.admits(text) == good, text
        assert matches(call_pattern(SPECS), text) == good, text


def test_a_call_is_read_into_its_declared_order_and_types() -> None:
    text = ' {"arguments": {"by_car":true, "extra": {"a": [1, 2.5]}, "stops": [{"at": [1]}]},\n"name": "trips.plan"}\n'
    name, arguments = read_call(text, SPECS)
    assert name == "trips.plan"
    assert compact(arguments) == '{"stops":[{"at":[1.0]}],"extra":{"a":[1,2.5]},"by_car":true}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a call as JSON, found ''"),
        ("get_weather(city='Oslo')", "expected a call as JSON, found "),
        ("[" * 100_000, "expected a call as JSON, found "),
        ("[]", 'expected a call {"name": …, "arguments": {…}}, found \'[]\''),
        ('{"name": "ping"}', 'expected a call {"name": …, "arguments": {…}}'),
        ('{"name": "ping", "arguments": {}, "id": 1}', 'expected a call {"name": …'),
        ('{"name": "get_wether", "arguments": {}}', "unknown tool 'get_wether': did you mean 'get_weather'?"),
        ('{"name": ["ping"], "arguments": {}}', "unknown tool ['ping']: one of get_weather, trips.plan, ping"),
        ('{"name": "ping", "arguments": []}', "ping: expected an object, found []"),
        ('{"name": "ping", "arguments": {"x": 1}}', "ping: unknown property 'x'"),
        ('{"name": "get_weather", "arguments": {}}', "get_weather: property 'city' is missing"),
        ('{"name": "get_weather", "arguments": {"city": 3}}', "get_weather: city: expected a text, found 3"),
        (
            '{"name": "trips.plan", "arguments": {"stops": [{"at": ["x"]}], "extra": 1}}',
            "trips.plan: stops[0].at[0]: expected a number, found 'x'",
        ),
        (
            '{"name": "trips.plan", "arguments": {"stops": [], "extra": 1, "budget": -1}}',
            "trips.plan: budget: expected a number from 0 to …, found -1",
        ),
    ],
)
def test_what_is_no_call_of_these_tools_is_refused_in_one_line(text: str, says: str) -> None:
    assert complaint(lambda: read_call(text, SPECS))[0].startswith(says)


def test_a_call_needs_tools_of_different_names() -> None:
    assert complaint(lambda: call_grammar([]))[0] == "a call needs at least one tool"
    assert complaint(lambda: call_grammar([SPECS[2]] * 2))[0].startswith("tool 'ping' stands twice")
    many = [ToolSpec.from_schema(of({"enum": [f"{n}{'x' * 400}"]}) | {"name": f"f{n}"}) for n in range(60)]
    assert "lower its limits or split the node" in complaint(lambda: call_grammar(many))[0]


def bfcl_rows() -> list[dict[str, Any]]:
    lines = [line for name in ("train", "test") for line in (BFCL / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines]


@needs_bfcl
def test_every_function_of_bfcl_has_a_grammar_whose_sentences_are_calls() -> None:
    rows = bfcl_rows()
    assert len(rows) == 400
    for row in rows:
        specs = read_tools(row["functions"])
        name, arguments = read_call(Gbnf(call_grammar(specs)).sample(random.Random(row["id"])), specs)
        assert read_call(written_call(name, arguments), specs) == (name, arguments)


@needs_bfcl
def test_the_targets_of_bfcl_are_right_and_as_their_ground_truth_lists_them() -> None:
    for row in bfcl_rows():
        target = read_calls(row["target"])
        assert same_calls(target, target)
        assert same_calls(target, read_calls(json.dumps(row["ground_truth"])))


SHORT = {"type": "string", "maxLength": 12}
REQUESTS = [
    ("What is the weather in Oslo?", [WEATHER]),
    ("Will it rain in Paris in the next three days?", [WEATHER, {"name": "ping"}]),
    ("Is the server still there?", [{"name": "ping", "description": "Asks the server for a sign of life."}, WEATHER]),
    ("Two of the red ones, please.", [of({"type": "dict", "properties": {"kind": SHORT, "count": {"type": "int"}}})]),
    ('Ünïcödé 😀: say "hello" twice', [of({"type": "tuple", "items": {"type": ["float", "null"]}, "maxItems": 3})]),
]  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize("source", ["own", pytest.param("bfcl", marks=needs_bfcl)])
def test_a_model_under_the_grammar_writes_calls_that_parse(tmp_path: Path, source: str) -> None:
    asked = REQUESTS if source == "own" else [(row["input"], row["functions"]) for row in bfcl_rows()[:5]]
    tools = [read_tools(declared) for _, declared in asked]
    requests = []
    for (request, _), specs in zip(asked, tools, strict=True):
        system = Message("system", f"Call the tool that answers the request.\n{described(specs)}")
        requests.append(Generate(Chat((system, Message("user", request))), 400, grammar=call_grammar(specs)))
    with open_runtime("smollm2-135m", store=tmp_path / "store.db", settings=RuntimeSettings(threads=2)) as runtime:
        completions = runtime.run(together([ask(request) for request in requests]))
    for completion, specs, request in zip(completions, tools, requests, strict=True):
        assert completion.error is None
        assert completion.finish == "stop"
        assert Gbnf(request.grammar or "").admits(completion.text or "")
        name, arguments = read_call(completion.text or "", specs)
        assert name in {spec.name for spec in specs}
        assert read_call(written_call(name, arguments), specs) == (name, arguments)


# ── functions of the user's own ──────────────────────────────────────────────────────────────────


def user_function(folder: Path, source: str, name: str = "f") -> Callable[..., Any]:
    (folder / "mine.py").write_text(f"from typing import *\nimport functools\n{source}\n", "utf-8")
    return load_function(f"mine.py:{name}", folder, "tools")


ORDER = '''
def order(item: str, count: int = 1, *, size: Literal["S", "M"] = "M", price: float | None = None,
          tags: list[str] = (), gift: Optional[bool] = None, more: dict = {}, rates: "dict[str, float]" = None,
          when: Annotated[int | str, "day"] = object()) -> str:
    """Order an item from
    the shop.

    Nothing is paid yet.

    Args:
        item: What to order,
            as note: the catalogue names it.
        count (int, optional): How many.
        price: The most to pay

    Returns:
        size: nothing that counts
    """
    return f"{count} x {item}"
'''


def test_a_typed_function_is_declared_with_its_types_defaults_and_docstring(tmp_path: Path) -> None:
    declared = tool_declaration(user_function(tmp_path, ORDER, "order"))
    assert declared == {
        "name": "order",
        "description": "Order an item from the shop.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "What to order, as note: the catalogue names it."},
                "count": {"type": "integer", "description": "How many.", "default": 1},
                "size": {"enum": ["S", "M"], "default": "M"},
                "price": {
                    "anyOf": [{"type": "number"}, {"type": "null"}],
                    "description": "The most to pay",
                    "default": None,
                },
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                "gift": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
                "more": {"type": "object", "additionalProperties": True, "default": {}},
                "rates": {"type": "object", "additionalProperties": {"type": "number"}, "default": None},
                "when": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            },
            "required": ["item"],
            "additionalProperties": False,
        },
    }
    spec = ToolSpec.from_schema(declared)
    assert spec.signature == (
        'order(item: str, count: int = 1, size: "S" | "M" = "M", price: float | null = null, tags: list[str] = [], '
        "gift: bool | null = null, more: dict[str, any] = {}, rates: dict[str, float] = null, when?: int | str)"
    )


def test_what_the_grammar_of_a_function_admits_it_can_be_called_with(tmp_path: Path) -> None:
    function = user_function(tmp_path, ORDER, "order")
    specs = [ToolSpec.from_schema(tool_declaration(function))]
    grammar = Gbnf(call_grammar(specs))
    for seed in range(30):
        _, arguments = read_call(grammar.sample(random.Random(seed)), specs)
        assert call_tool(function, arguments) == f"{arguments.get('count', 1)} x {arguments['item']}"


@pytest.mark.parametrize(
    ("docstring", "description", "note"),
    [
        ("", "", None),
        ("Args:\n        x: It.", "", "It."),
        ("One.\n    Two.\n\n    Three.\n    Arguments:\n        x (a: b): It\n\n        y: No", "One. Two.", "It"),
        ("One.\n\n    Args:\n      y: no\n      x: It is\n        long.\n    After: x", "One.", "It is long."),
        ("One.\n\n    Returns:\n        x: no\n", "One.", None),
        ("One.\n\n    Args:\n        x:", "One.", None),
    ],
)
def test_a_docstring_says_what_a_tool_and_its_parameters_are_for(
    tmp_path: Path, docstring: str, description: str, note: str | None
) -> None:
    declared = tool_declaration(user_function(tmp_path, f'def f(x: int):\n    """{docstring}"""'))
    assert declared["description"] == description
    assert declared["parameters"]["properties"]["x"].get("description") == note


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(x): pass", "mine.py:f: parameter 'x' has no type: possible are str, int, float, bool, None, Literal"),
        ("def f(*x: int): pass", "mine.py:f: parameter 'x' takes any number of arguments: a call gives every"),
        ("def f(**x: int): pass", "mine.py:f: parameter 'x' takes arguments of any name: a call gives every"),
        ("def f(x: int, /): pass", "mine.py:f: parameter 'x' is positional-only: a call gives every argument by"),
        ("def f(x: bytes): pass", "mine.py:f: parameter 'x' has the type bytes, which no call can give: possible"),
        ("def f(x: Any): pass", "mine.py:f: parameter 'x' has the type Any, which no call can give: possible"),
        ("def f(x: list): pass", "mine.py:f: parameter 'x' has the type list, which no call can give"),
        ("def f(x: List): pass", "mine.py:f: parameter 'x' has the type List, which no call can give"),
        ("def f(x: dict[int, str]): pass", "mine.py:f: parameter 'x' has the type dict[int, str], which no call"),
        ("def f(x: tuple[int, str]): pass", "mine.py:f: parameter 'x' has the type tuple[int, str], which no call"),
        ("def f(x: list[bytes | None]): pass", "mine.py:f: parameter 'x' has the type bytes, which no call can give"),
        ("def f(x: Literal[b'a']): pass", "mine.py:f: parameter 'x' has the type Literal[b'a'], which no call"),
        ("def f(x: Callable[[], int]): pass", "mine.py:f: parameter 'x' has the type Callable[[], int], which no"),
        ("def f(x: 'Nowhere'): pass", "mine.py:f: its annotations cannot be read: NameError: name 'Nowhere'"),
        ("async def f(x: int): pass", "mine.py:f: is async: a tool is an ordinary function; write def"),
        ("async def f(x: int): yield 1", "mine.py:f: is async"),
        ("def f(x: int): yield 1", "mine.py:f: yields: a tool returns its result"),
        ("f = lambda: 1", "mine.py:<lambda>: a tool is a function written with def"),
        ("f = functools.partial(print)", "partial: a tool is a function written with def"),
        ("class f: pass", "f: a tool is a function written with def"),
    ],
)
def test_a_function_that_no_call_can_reach_is_refused_by_file_function_and_parameter(
    tmp_path: Path, source: str, says: str
) -> None:
    function = user_function(tmp_path, source)
    assert complaint(lambda: tool_declaration(function))[0].startswith(says)


def test_a_tool_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^task\.yaml:3: .*away\.py: no such file$"):
        load_function("away.py:f", tmp_path, "task.yaml:3")


def test_a_decorated_function_is_declared_as_what_it_wraps(tmp_path: Path) -> None:
    source = (
        "def twice(inner):\n    @functools.wraps(inner)\n    def outer(*a, **k):\n        return inner(*a, **k) * 2\n"
        "    return outer\n@twice\ndef f(x: str):\n    'Say it.'\n    return x"
    )
    function = user_function(tmp_path, source)
    assert ToolSpec.from_schema(tool_declaration(function)).signature == "f(x: str)"
    assert call_tool(function, {"x": "ab"}) == "abab"
    assert complaint(lambda: call_tool(function, {}))[0] == "mine.py:f: missing a required argument: 'x'"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return 'é\\n'", "é\n"),
        ("return ''", ""),
        ("return None", "null"),
        ("return 2.5", "2.5"),
        ("return {'é': [True, (1, 2)]}", '{"é": [true, [1, 2]]}'),
    ],
)
def test_a_result_is_text_as_it_is_or_json(tmp_path: Path, body: str, text: str) -> None:
    assert call_tool(user_function(tmp_path, f"def f():\n    {body}"), {}) == text


@pytest.mark.parametrize(
    ("body", "arguments", "says"),
    [
        ("return 1", {}, "mine.py:f: missing a required argument: 'x'"),
        ("return 1", {"x": 1, "y": 2}, "mine.py:f: got an unexpected keyword argument 'y'"),
        ("return 1 / x", {"x": 0}, "mine.py:f: ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\n  lines')", {"x": 1}, "mine.py:f: ValueError: two lines"),
        ("raise RuntimeError", {"x": 1}, "mine.py:f: RuntimeError"),
        ("raise SystemExit(2)", {"x": 1}, "mine.py:f: SystemExit: 2"),
        ("return f(x)", {"x": 1}, "mine.py:f: RecursionError: maximum recursion depth exceeded"),
        ("return {x}", {"x": 1}, "mine.py:f: returned a set, which is no JSON (Object of type set is not JSON"),
        ("return object()", {"x": 1}, "mine.py:f: returned an object, which is no JSON"),
        ("return [float('nan')]", {"x": 1}, "mine.py:f: returned a list, which is no JSON (Out of range float"),
        ("y = []; y.append(y); return y", {"x": 1}, "mine.py:f: returned a list, which is no JSON (Circular"),
        ("return '\\ud800'", {"x": 1}, "mine.py:f: returned half a character, which is no text"),
    ],
)
def test_a_call_that_goes_wrong_is_one_line_that_names_the_function(
    tmp_path: Path, body: str, arguments: dict[str, Any], says: str
) -> None:
    function = user_function(tmp_path, f"def f(x: int):\n    {body}")
    assert complaint(lambda: call_tool(function, arguments))[0].startswith(says)


def test_a_wish_to_stop_goes_through_a_tool(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        call_tool(user_function(tmp_path, "def f():\n    raise KeyboardInterrupt"), {})
