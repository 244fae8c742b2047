"""Typed outputs: what their grammars admit always parses, what they refuse is named, and equal values read alike."""

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter
from support_gbnf import Gbnf

from engine.errors import ContentError
from engine.forward import bind
from engine.program.declared import declared_program
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.program.layers.predict import Predict as PredictLayer
from engine.program.parameters import Demo
from engine.program.prompt import read_reply, reply_grammar
from engine.program.saved import SavedProgram, load_saved
from engine.program.typed.fields import Field, as_fields, read_type, to_plain
from engine.program.typed.grammar import (
    MAX_ELEMENTS,
    Either,
    Exactly,
    OneOf,
    Pattern,
    Repeat,
    Then,
    gbnf,
    matches,
    optional,
    prose,
    words,
)
from engine.program.typed.json_schema import json_schema
from engine.program.typed.json_values import Integer, compact
from engine.program.typed.regex import regex
from engine.records import Chat, Completion, Generate, Request
from engine.tasks.splits import load_splits
from engine.tasks.taskfile import load_task

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
        "note": {"type": "string", "maxLength": 20},
        "size": {"enum": ["S", "M", 'X"L\\\n', 1, 2.5, True, None]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1, "maxItems": 3},
        "discount": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "gift": {"type": "boolean"},
    },
    "required": ["id", "lines"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 250}, "of": {"type": "string"}},
        }
    },
}
TYPES: dict[str, Any] = {
    "text": "text",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "choices": {"choices": ["yes", "no", "yes, but", 'a "quoted" \\ one', "é😀"]},
    "regex": {"regex": r"[A-Z]{3}-[0-9]+( \w|\.|[^a-z,])*"},
    "spaces": {"regex": " [ a]* "},
    "texts": {"list": "text"},
    "ints": {"list": "int"},
    "floats": {"list": "float"},
    "bools": {"list": "bool"},
    "kinds": {"list": {"choices": ["a", "b"]}},
    "schema": {"schema": ORDER},
    "number": {"schema": {"type": "number"}},
}


CHANCES = st.integers(0, 2**32).map(random.Random)


def complaint(build: Callable[[], Any]) -> tuple[str, tuple[str | int, ...]]:
    """What is said, and the place it is said of."""
    with pytest.raises(ContentError) as caught:
        build()
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.path


# ── what a grammar admits parses ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TYPES)
@given(chance=CHANCES, chat=st.booleans())
def test_every_text_of_a_types_grammar_is_read_into_a_canonical_one(
    name: str, chance: random.Random, chat: bool
) -> None:
    fields = as_fields({"lead": "bool", "answer": TYPES[name]} if name == "text" else {"answer": TYPES[name]})
    grammar = reply_grammar(fields, chat)
    assert grammar
    text = read_reply(Gbnf(grammar).sample(chance), fields)["answer"]
    assert fields[-1].canonical(text) == text
    if name not in ("text", "regex", "spaces"):
        assert json.dumps(text)
        assert text == text.strip()


@given(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4, unique=True), CHANCES, st.booleans())
def test_every_reply_of_several_fields_is_read_back_field_by_field(
    names: list[str], chance: random.Random, chat: bool
) -> None:
    assume(names != ["text"])
    fields = as_fields({name: TYPES[name] for name in names})
    grammar = reply_grammar(fields, chat)
    assert grammar
    read = read_reply(Gbnf(grammar).sample(chance), fields)
    assert list(read) == names
    assert all("\n" not in read[name] for name in names[:-1])


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(10**15), 10**15),
    "float": st.floats(-1e15, 1e15).map(lambda value: round(value, 6)),
    "bool": st.booleans(),
    "ints": st.lists(st.integers(-99, 10**9), max_size=16),
    "bools": st.lists(st.booleans(), max_size=16),
    "texts": st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=9), max_size=9),
    "kinds": st.lists(st.sampled_from("ab"), max_size=16),
}


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_a_value_survives_its_canonical_text_which_its_grammar_admits(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    field = Field("answer", read_type(TYPES[name]))
    text = field.canonical(value)
    assert json.loads(text) == value
    assert field.canonical(text) == text
    grammar = reply_grammar((field,), chat=True)
    assert grammar
    if "e" not in text or name != "float":  # an exponent has at most two digits there
        assert Gbnf(grammar).admits(text)
        assert Gbnf(grammar).admits(f"{text}\n")
        assert not Gbnf(grammar).admits(f"{text}\n\n")


@pytest.mark.parametrize(
    ("name", "written", "canonical"),
    [
        ("int", " +042\n", "42"),
        ("int", "-0", "0"),
        ("float", "3", "3.0"),
        ("float", "-0.0", "0.0"),
        ("float", "1e22", "1e+22"),
        ("float", ".50", "0.5"),
        ("bool", " True", "true"),
        ("choices", " yes\n", "yes"),
        ("texts", '[ "a",\t"b" ]', '["a","b"]'),
        ("texts", '["\\u00e9\\n"]', '["é\\n"]'),
        ("floats", "[1, 2.50]", "[1.0,2.5]"),
        ("spaces", " a ", " a "),
        ("schema", '{"lines": [{}], "id": "AB-1"}', '{"id":"AB-1","lines":[{}]}'),
        ("number", "1E2", "100.0"),
        ("text", " any\nthing ", "any\nthing"),
    ],
)
def test_a_value_is_read_however_it_is_written(name: str, written: str, canonical: str) -> None:
    assert read_type(TYPES[name]).canonical(written) == canonical


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("int", "4.5", "expected a whole number, found '4.5'"),
        ("int", "", "expected a whole number, found ''"),
        ("int", "４", "expected a whole number, found '４'"),
        ("int", "9" * 5000, "expected a whole number, found '999"),
        ("float", "nan", "expected a number, found 'nan'"),
        ("float", "1e999", "expected a number, found '1e999'"),
        ("float", "1_0", "expected a number"),
        ("bool", "yes", "expected true or false, found 'yes'"),
        ("choices", "Yes", "expected one of yes, no, yes, but"),
        ("regex", "ABC-x", "expected a text of the form [A-Z]{3}-[0-9]+"),
        ("ints", "[1, true]", "[1]: expected a whole number, found True"),
        ("ints", "1", "expected a list, found 1"),
        ("texts", '["\\ud800"]', "[0]: expected a text"),
        ("texts", "[" * 100_000, "expected JSON, found "),
        ("number", "NaN", "expected a number, found nan"),
        ("number", "1" * 400, "expected a number, found "),
        ("schema", '{"id": "AB-1"}', "property 'lines' is missing"),
        ("schema", '{"id": "AB-1", "lines": [], "x": 1}', "unknown property 'x': known here: id"),
        ("schema", '{"id": "AB1", "lines": [{}]}', "id: expected a text of the schema's pattern, found 'AB1'"),
        ("schema", '{"id": "AB-1", "lines": []}', "lines: expected at least 1 and at most 3 items, found 0"),
        ("schema", '{"id": "AB-1", "lines": [{"count": 0}]}', "lines[0].count: expected a whole number from 1 to 250"),
        ("schema", '{"id": "AB-1", "lines": [{}], "gift": 1}', "gift: expected one of true, false, found 1"),
        ("schema", '{"id": "AB-1", "lines": [{}], "discount": "x"}', "discount: expected one of null, found 'x'"),
        ("schema", '{"id": "AB-1", "lines": [{}], "note": "' + "x" * 21 + '"}', "note: expected a text of at least 0"),
    ],
)
def test_what_is_no_value_of_a_type_is_refused_with_what_was_expected(name: str, written: str, says: str) -> None:
    said, _ = complaint(lambda: read_type(TYPES[name]).canonical(written))
    assert said.startswith(says)


@given(st.text(max_size=40), st.sampled_from(list(TYPES)))
def test_any_reply_is_read_or_refused_and_never_breaks(reply: str, name: str) -> None:
    fields = as_fields({"lead": "text", "answer": TYPES[name]})
    for text in (reply, f" x\nAnswer: {reply}"):
        try:
            read = read_reply(text, fields)
        except ContentError:
            continue
        assert list(read) == ["lead", "answer"]


def test_the_grammar_of_several_fields_reads_as_the_prompt_lays_them_out() -> None:
    fields = as_fields({"reason": "text", "amount_due": "int", "paid": "bool"})
    grammar = reply_grammar(fields, chat=True)
    assert grammar == (
        'root ::= " " r1 "\\nAmount due: " "-"? ("0" | [1-9] r2) "\\nPaid: " ("true" | "false") "\\n"?\n'
        "r1 ::= [\\x20-\\x7e\\xa0-\\ud7ff\\ue000-\\U0010ffff]{1,400}\n"
        "r2 ::= [0-9]{0,15}"
    )
    assert reply_grammar(as_fields(["reason", "answer"]), chat=True) is None


def test_one_field_starts_at_once_in_a_chat_and_after_a_space_in_plain_text() -> None:
    fields = as_fields({"paid": "bool"})
    for chat, text in ((True, "true"), (False, " true")):
        grammar = Gbnf(reply_grammar(fields, chat) or "")
        assert grammar.admits(text)
        assert not grammar.admits(f" {text}")


def test_a_last_field_of_text_is_free_and_others_are_one_line_of_bounded_length() -> None:
    grammar = Gbnf(reply_grammar(as_fields({"first": "text", "count": "int", "last": "text"}), chat=True) or "")
    assert grammar.admits(" " + "x" * 400 + "\nCount: 3\nLast: two\nlines\n\n" + "y" * 900)
    assert not grammar.admits(" " + "x" * 401 + "\nCount: 3\nLast: z")
    assert not grammar.admits(" a\nb\nCount: 3\nLast: z")


# ── GBNF ─────────────────────────────────────────────────────────────────────────────────────────

CHARACTERS = st.characters(codec="utf-8") | st.sampled_from('"\\\n\r\t[]^-{}|()\x01\x7f\x85\u2028\ufeff😀')


@given(st.lists(st.text(CHARACTERS, min_size=1, max_size=8), min_size=1, max_size=3), st.text(CHARACTERS, max_size=3))
def test_a_literal_is_escaped_so_that_it_means_itself(texts: list[str], other: str) -> None:
    grammar = Gbnf(gbnf(Then((words(texts), Exactly("|"), Repeat(words(texts), 0, 2)))))
    for text in texts:
        assert grammar.admits(f"{text}|")
        assert grammar.admits(f"{text}|{texts[0]}{text}")
    assert grammar.admits(f"{other}|") == (other in texts)


@given(st.lists(st.tuples(CHARACTERS, CHARACTERS), min_size=1, max_size=4), st.lists(CHARACTERS, max_size=5))
def test_a_set_of_characters_is_escaped_so_that_it_means_itself(bounds: list[tuple[str, str]], more: list[str]) -> None:
    ranges = tuple((min(ord(a), ord(b)), max(ord(a), ord(b))) for a, b in bounds)
    grammar = Gbnf(gbnf(OneOf(ranges)))
    for character in [*more, *(c for pair in bounds for c in pair)]:
        assert grammar.admits(character) == any(low <= ord(character) <= high for low, high in ranges)


def repeated(item: Pattern, low: int, more: int | None) -> Pattern:
    return Repeat(Then((Exactly("a"), item)), low, None if more is None else low + more)


PATTERNS = st.recursive(
    st.builds(Exactly, st.text("ab", min_size=1, max_size=3)) | st.just(OneOf(((0x61, 0x62),))),
    lambda inner: (
        st.builds(Then, st.lists(inner, min_size=1, max_size=4).map(tuple))
        | st.builds(Either, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(optional, inner)
        | st.builds(repeated, inner, st.integers(0, 9), st.integers(0, 9) | st.none())
    ),
    max_leaves=8,
)  # fmt: skip


@given(PATTERNS, st.lists(st.text("abc", max_size=7), max_size=8), CHANCES)
def test_gbnf_and_the_own_matcher_describe_the_same_texts(
    pattern: Pattern, texts: list[str], chance: random.Random
) -> None:
    grammar = Gbnf(gbnf(Then((Exactly("c"), pattern))))
    for text in texts:
        assert grammar.admits("c" + text) == matches(pattern, text)
    assert matches(pattern, grammar.sample(chance)[1:])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Repeat(Exactly("a"), 0, 2001), "a repetition of up to 2,001 times: at most 2,000 here"),
        (lambda: Repeat(Exactly("a"), 2001), "a repetition of up to 2,001 times: at most 2,000 here"),
        (lambda: Repeat(Exactly("a"), 3, 2), "a repetition of 3 to 2 times"),
        (lambda: Repeat(optional(Exactly("a"))), "a repetition of what may itself be empty"),
        (lambda: Repeat(Repeat(Exactly("a")), 1), "a repetition of what may itself be empty"),
        (
            lambda: gbnf(Then(tuple(Repeat(OneOf(((n, n),)), 0, 2000) for n in range(65, 90)))),
            f"at most {MAX_ELEMENTS:,} here: lower its limits or split the node",
        ),
    ],
)
def test_a_grammar_that_llama_cpp_could_not_take_is_refused(build: Callable[[], Any], says: str) -> None:
    assert says in complaint(build)[0]


def test_an_alternative_inside_a_single_one_stays_apart_from_its_neighbours() -> None:
    grammar = Gbnf(gbnf(Then((Exactly("<"), Either((Either((words("ab"),)),)), Exactly(">")))))
    assert [text for text in ("<a>", "<b>", "<a", "b>") if grammar.admits(text)] == ["<a>", "<b>"]


def test_prose_is_a_line_of_sentences() -> None:
    assert prose(240) == r'root ::= [A-Z] [^\n\x00-\x1f]{10,240} [.] "\n"?'


def test_prose_may_have_to_begin_with_certain_words() -> None:
    root = prose(240, ["Read", 'Say "so"'])
    assert root == r'root ::= ("Read " | "Say \"so\" ") [a-z] [^\n\x00-\x1f]{10,240} [.] "\n"?'


# ── regular expressions ──────────────────────────────────────────────────────────────────────────

ATOMS = st.sampled_from(
    ["a", "b", "ab", "-", "é", ".", r"\.", r"\-", r"\t", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S"]
) | st.sampled_from(["[ab]", "[^a]", "[a-c-]", r"[\d_-]", r"[^\w]", "[]a]", "[^]a]", r"[\]\\]", "[ -~]"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("".join, st.lists(inner, min_size=1, max_size=3))
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("(?:{}){}".format, inner, st.sampled_from(["?", "*", "+", "{2}", "{1,}", "{0,3}", "{,2}", "{1}"]))
    ),
    max_leaves=6,
)
LINES_OF = st.text(st.sampled_from("aab1-_. ,é]\\"), max_size=6)


@settings(max_examples=200)
@given(EXPRESSIONS, st.lists(LINES_OF, max_size=8), CHANCES)
def test_an_expression_means_what_it_means_to_python(expression: str, texts: list[str], chance: random.Random) -> None:
    try:
        pattern = regex(expression)
    except ContentError as error:
        assume("may itself be empty" not in str(error))
        raise
    for text in texts:
        assert matches(pattern, text) == bool(re.fullmatch(expression, text, re.ASCII)), text
    for sampled in (Gbnf(gbnf(Then((Exactly("!"), pattern)))).sample(chance)[1:] for _ in range(5)):
        assert re.fullmatch(expression, sampled, re.ASCII), sampled
        assert matches(pattern, sampled)


def test_an_expression_that_backtracking_would_never_finish_is_matched_at_once() -> None:
    assert not matches(regex("(a+)+b"), "a" * 2000)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "an empty alternative: write (…)? for what may be absent"),
        ("a|", "an empty alternative"),
        ("(|a)", "an empty alternative"),
        ("()", "an empty alternative"),
        ("(a", "a ( without its )"),
        ("a)", "a ) without its ("),
        ("[a", "a [ without its ]"),
        ("[b-a]", "a range in [] whose end does not follow its start"),
        ("*a", "* with nothing before it; write \\* for the character"),
        ("a**", "**: one quantifier after the other"),
        ("a*?", "*?: one quantifier after the other"),
        ("a{", "a { that is no {n}, {n,} or {m,n}"),
        ("a{,}", "{,} without a number"),
        ("a{0}", "{0}, which leaves nothing"),
        ("a{3,2}", "a repetition of 3 to 2 times: the smaller number comes first"),
        ("a{5000}", "a repetition of up to 5,000 times: at most 2,000 here"),
        ("a{99999999999999999999}", "a repetition of up to 999,999,999 times"),
        ("(a{1,100}b){1,100}", "10,100 characters, its nested repetitions written out; at most 2,000 here"),
        ("(a*)*", "a repetition of what may itself be empty"),
        ("(a?){2}", "a repetition of what may itself be empty"),
        ("(?=a)", "a group that begins with (? but not (?:"),
        ("a^b", "^ in the middle"),
        ("a$b", "$ in the middle"),
        (r"\bfoo", "\\b, which is not supported here"),
        (r"(a)\1", "\\1, which is not supported here"),
        ("a\\", "\\, which is not supported here"),
        (r"a\n", "\\n: a value stands on one line"),
        ("a\nb", "the character U+000A, which has no place on a line"),
        ("a\ud800", "the character U+D800, which has no place on a line"),
        (r"[^\w\W]", "a set of characters that holds none"),
        ("(" * 30 + "a" + ")" * 30, "groups nested deeper than 20"),
    ],
)
def test_an_expression_outside_the_subset_is_refused_by_name(expression: str, says: str) -> None:
    said, _ = complaint(lambda: regex(expression))
    assert said.startswith(f"regex {expression!r}: ")
    assert says in said


@given(st.text(st.sampled_from("ab0[](){}|\\*+?.^$-,1n"), max_size=12))
def test_any_expression_is_read_as_python_does_or_refused(expression: str) -> None:
    try:
        pattern = regex(expression)
    except ContentError:
        return
    for text in ("", "a", "b", "ab", "aa", "0", "a0", "\\", "[", "-"):
        assert matches(pattern, text) == bool(re.fullmatch(expression, text, re.ASCII))


# ── JSON schemas ─────────────────────────────────────────────────────────────────────────────────


@given(st.integers(-1200, 1200), st.integers(0, 1500))
def test_the_numerals_of_a_range_are_exactly_its_numbers(low: int, width: int) -> None:
    pattern = Integer(low, low + width).pattern()
    for number in {low - 1, low, low + 1, low + width // 2, low + width, low + width + 1, -low, 0, 10 * low}:
        assert matches(pattern, str(number)) == (low <= number <= low + width), number
    assert not any(matches(pattern, text) for text in ("", "-", "-0", "007", "+1"))


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15), CHANCES)
def test_half_open_and_large_ranges_hold(one: int, other: int, chance: random.Random) -> None:
    low, high = min(one, other), max(one, other)
    for part in (Integer(low, high), Integer(low, None), Integer(None, high)):
        grammar = Gbnf(gbnf(part.pattern()))
        assert part.read(int(grammar.sample(chance))) is not None
        assert grammar.admits(str(low if part.low is not None else high))


LIMITS = st.none() | st.integers(-200, 200) | st.floats(-200, 200)


@given(LIMITS, LIMITS, CHANCES)
def test_the_decimals_of_a_range_lie_within_it_and_its_whole_numbers_are_among_them(
    one: float | None, other: float | None, chance: random.Random
) -> None:
    low, high = sorted((one, other)) if one is not None and other is not None else (one, other)
    whole = [n for n in range(-200, 201) if (low is None or low <= n) and (high is None or n <= high)]
    schema = {"type": "number", "minimum": low, "maximum": high}
    if not whole:
        assert "a whole number between them" in complaint(lambda: json_schema(schema))[0]
        return
    part = json_schema(schema)
    grammar = Gbnf(gbnf(part.pattern()))
    for _ in range(5):
        part.read(json.loads(grammar.sample(chance)))
    for number in range(-200, 200, 19):
        assert grammar.admits(str(number)) == (number in whole)
        if number >= 0 and number in whole and number + 1 in whole:
            assert grammar.admits(f"{number}.25")


@given(st.dictionaries(st.text('aé"\\ ', min_size=1, max_size=5), st.integers(0, 9), max_size=4))
def test_an_object_of_any_names_holds_values_of_one_schema(value: dict[str, int]) -> None:
    part = json_schema({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
    grammar = Gbnf(gbnf(part.pattern()))
    assert grammar.admits(compact(value))
    assert part.read(value) == value
    assert not grammar.admits(compact(value | {"a": -1}))
    assert complaint(lambda: part.read(value | {"a": "x"}))[0] == "a: expected a whole number, found 'x'"
    assert complaint(lambda: part.read([]))[0] == "expected an object, found []"


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    of: str
    count: int = 1


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["new", "old"]
    lines: list[Line]
    price: float | None = None
    urgent: bool = False
    same: Line | None = None


@given(CHANCES)
def test_what_the_grammar_of_a_models_schema_admits_that_model_accepts(chance: random.Random) -> None:
    schema = TypeAdapter(Order).json_schema()
    part = json_schema(schema)
    text = Gbnf(gbnf(part.pattern())).sample(chance)
    Order.model_validate_json(text)
    assert part.read(json.loads(text)) == json.loads(text)


OPTIONAL = {"type": "object", "properties": {name: {"type": "null"} for name in "abc"}}


@pytest.mark.parametrize("required", [[], ["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]])
def test_an_object_has_its_required_properties_and_any_of_the_others(required: list[str]) -> None:
    grammar = Gbnf(gbnf(json_schema(OPTIONAL | {"required": required}).pattern()))
    for number in range(8):
        there = [name for bit, name in enumerate("abc") if number >> bit & 1]
        text = compact(dict.fromkeys(there))
        assert grammar.admits(text) == (set(required) <= set(there)), text
    assert not grammar.admits('{,"a":null}')
    assert not grammar.admits('{"a":null,}')
    assert grammar.admits('{"a": null, "b": null,"c":null}')
    assert not grammar.admits('{"a":  null,"b":null,"c":null}')


@pytest.mark.parametrize(
    ("schema", "says", "path"),
    [
        ("text", "expected a schema (a mapping with a type), found 'text'", ()),
        ({}, "a schema without a type: one of object, array, string", ()),
        ({"type": "strin"}, "unknown type 'strin': did you mean 'string'?", ("type",)),
        ({"type": ["string", "null"]}, "unknown type ['string', 'null']: one of object", ("type",)),
        (
            {"type": "string", "format": "date"},
            "unsupported keyword 'format': with string these are: type, minLength, maxLength, pattern",
            ("format",),
        ),
        (
            {"type": "number", "multipleOf": 2},
            "unsupported keyword 'multipleOf': with number these are: type, minimum, maximum",
            ("multipleOf",),
        ),
        ({"type": "number", "minimum": True}, "minimum: expected a number of at most 16 digits", ("minimum",)),
        ({"type": "number", "maximum": float("inf")}, "maximum: expected a number of at most 16", ("maximum",)),
        ({"type": "number", "minimum": 1, "maximum": 0.5}, "minimum is larger than maximum", ("minimum",)),
        ({"type": "number", "minimum": 0.1, "maximum": 0.9}, "minimum and maximum: a grammar needs", ("minimum",)),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "unsupported keyword 'type': with anyOf", ("type",)),
        ({"anyOf": []}, "anyOf: expected a list that is not empty, found []", ("anyOf",)),
        ({"enum": [[]]}, "enum: expected texts, numbers, true, false or null", ("enum",)),
        ({"type": "integer", "enum": [1, True]}, "enum: true is no integer", ("enum",)),
        ({"type": "string", "const": 1}, "const: 1 is no string", ("const",)),
        ({"type": "array"}, "an array needs items", ()),
        ({"type": "array", "items": {"type": "x"}}, "unknown type 'x'", ("items", "type")),
        (
            {"type": "array", "items": {"type": "null"}, "maxItems": 9999},
            "maxItems: a repetition of up to 9,999 times: at most 2,000 here",
            ("maxItems",),
        ),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength and maxLength: expected 0", ("maxLength",)),
        ({"type": "string", "maxLength": 2.5}, "maxLength: expected a whole number", ("maxLength",)),
        ({"type": "string", "pattern": "a"}, "pattern: expected ^…$ around an expression", ("pattern",)),
        ({"type": "string", "pattern": "^a**$"}, "regex '^a**$': **: one quantifier after the other", ("pattern",)),
        ({"type": "string", "pattern": "^a$", "maxLength": 1}, "pattern together with minLength", ("pattern",)),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum is larger than maximum", ("minimum",)),
        ({"type": "integer", "minimum": 10**17}, "minimum: expected a whole number of at most 16", ("minimum",)),
        (
            {"type": "object", "additionalProperties": True},
            "additionalProperties: only false is supported, or a schema where there are no properties",
            ("additionalProperties",),
        ),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "null"}},
            "additionalProperties: only false is supported",
            ("additionalProperties",),
        ),
        (
            {"type": "object", "additionalProperties": {"type": "x"}},
            "unknown type 'x'",
            ("additionalProperties", "type"),
        ),
        ({"type": "object", "properties": []}, "properties: expected a mapping", ("properties",)),
        (
            {"type": "object", "properties": {"abc": {"type": "null"}}, "required": ["abd"]},
            "required names 'abd', which is no property: did you mean 'abc'?",
            ("required",),
        ),
        (
            {"type": "object", "properties": {"a": {"type": "null", "x": 1}}},
            "unsupported keyword 'x'",
            ("properties", "a", "x"),
        ),
        ({"$ref": "#/$defs/a"}, "$ref '#/$defs/a' leads nowhere: known here: none, there are no $defs", ("$ref",)),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
            "$ref '#/$defs/a' is part of itself: a grammar needs an end",
            ("$defs", "a", "items", "$ref"),
        ),
    ],
)  # fmt: skip
def test_a_schema_outside_the_subset_is_refused_by_its_keyword(
    schema: Any, says: str, path: tuple[str | int, ...]
) -> None:
    said, where = complaint(lambda: json_schema(schema))
    assert said.startswith(says)
    assert where == path


def test_references_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(10)} | {"d10": {"type": "null"}}
    assert (
        "a schema of more than 500 parts" in complaint(lambda: json_schema({"$ref": "#/$defs/d0", "$defs": twice}))[0]
    )


def test_optional_properties_nested_deeply_are_written_once() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(11):
        schema = {"type": "object", "properties": {name: {"type": "null"} for name in "ab"} | {"c": schema}}
    assert len(gbnf(json_schema(schema).pattern())) < 10_000
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    assert "nested deeper than 24" in complaint(lambda: json_schema(schema))[0]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3000)
    | st.floats()
    | st.sampled_from([*TYPES, "string", "^a$", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "items", "properties", "required", "enum", "const", "anyOf", "$ref", "$defs", "a", "maxLength",
                 "pattern", "minimum", "maxItems", "list", "choices", "regex", "schema", "additionalProperties"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300)
@given(JUNK, st.sampled_from(["string", "object", "array", "integer", None]))
def test_any_type_is_read_and_written_back_alike_or_refused(junk: Any, kind: str | None) -> None:
    if kind and isinstance(junk, dict):
        junk = {"schema": {"type": kind} | junk}
    try:
        fields = as_fields({"answer": junk})
    except ContentError:
        return
    assert as_fields(to_plain(fields)) == fields
    assert hash(as_fields(to_plain(fields))) == hash(fields)


# ── in programs ──────────────────────────────────────────────────────────────────────────────────

OUTPUTS = {"reasoning": "text", **{name: spec for name, spec in TYPES.items() if name != "text"}}


def spec(**settings: Any) -> dict[str, Any]:
    return {"layer": "predict", "inputs": ["question"], "instruction": "Answer."} | settings


def typed(outputs: Any, **settings: Any) -> Program:
    return Program(Predict("Answer.", output=outputs, **settings)(Input("question"), name="node"))


def test_typed_outputs_read_back_equal_from_mapping_and_file(tmp_path: Path) -> None:
    program = typed(OUTPUTS)
    mapping = program.to_mapping()
    assert mapping["nodes"]["node"]["outputs"] == OUTPUTS
    assert json.dumps(mapping["nodes"]["node"]["outputs"]) == json.dumps(OUTPUTS)
    assert Program.from_mapping(json.loads(json.dumps(mapping))) == program
    SavedProgram("n", "m", "", program).save(tmp_path / "one.yaml")
    loaded = load_saved(tmp_path / "one.yaml").program
    assert (loaded, loaded.fingerprint) == (program, program.fingerprint)
    assert hash(loaded.nodes[0].layer) == hash(program.nodes[0].layer)
    assert loaded.output == "node.number"


def test_a_mapping_of_texts_is_the_list_of_their_names() -> None:
    assert typed({"why": "text", "answer": "text"}) == typed(("why", "answer"))
    assert typed({"answer": "text"}).to_mapping()["nodes"]["node"]["outputs"] == ["answer"]


def test_a_schema_taken_in_does_not_change_with_the_mapping_it_was_given_as() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "null"}}}
    program = typed({"answer": {"schema": schema}})
    before = program.fingerprint
    schema["properties"]["b"] = {"type": "null"}
    program.to_mapping()["nodes"]["node"]["outputs"]["answer"]["schema"]["properties"].clear()
    assert program.fingerprint == before


@pytest.mark.parametrize(
    ("outputs", "says", "path"),
    [
        ({"x": "flot"}, "x: unknown type 'flot': did you mean 'float'?", ("x",)),
        ({"x": "choices"}, "x: type choices needs more: {choices: …}", ("x",)),
        ({"x": {"lst": "int"}}, "x: unknown type 'lst': did you mean 'list'?", ("x", "lst")),
        ({"x": {"list": {"list": "int"}}}, "x: list: expected text, int, float, bool or choices", ("x", "list")),
        ({"x": {"list": "strng"}}, "x: unknown type 'strng'", ("x", "list")),
        ({"x": None}, "x: expected a type (one of text, int, float, bool, choices, regex, list, schema)", ("x",)),
        ({"x": {"list": "int", "max": 3}}, "x: expected a type", ("x",)),
        ({"x": {"choices": "ab"}}, "x: choices: expected a list of texts, found 'ab'", ("x", "choices")),
        ({"x": {"choices": [True, False]}}, "x: choices: expected a list of at least two texts", ("x", "choices")),
        ({"x": {"choices": ["a"]}}, "x: choices: expected a list of at least two texts", ("x", "choices")),
        ({"x": {"choices": ["a", "a"]}}, "x: choice 'a' stands twice", ("x", "choices")),
        ({"x": {"choices": ["a", "b\nc"]}}, "x: choice 'b\\nc': expected a line of text", ("x", "choices")),
        ({"x": {"choices": ["a", " "]}}, "x: choice ' ': expected a line of text", ("x", "choices")),
        ({"x": {"regex": 5}}, "x: regex: expected text, found 5", ("x", "regex")),
        ({"x": {"regex": "(a{1,99}){1,99}"}}, "x: regex '(a{1,99}){1,99}': 9,801 characters", ("x", "regex")),
        (
            {"x": {"schema": {"type": "array", "items": {"type": "x"}}}},
            "x: unknown type 'x'",
            ("x", "schema", "items", "type"),
        ),
        ({"x": {"schema": {"enum": [float("nan")]}}}, "x: schema: expected plain JSON data", ("x", "schema")),
        ({"x": {"schema": {1: 2}}}, "x: schema: expected plain JSON data", ("x", "schema")),
        ({"a b": "int"}, "output name 'a b'", ()),
    ],
)  # fmt: skip
def test_a_mistake_in_a_type_is_named_with_its_place(outputs: Any, says: str, path: tuple[str, ...]) -> None:
    if outputs != {"x": {"schema": {1: 2}}}:  # the node's reader wants text keys of its own mapping only
        said, where = complaint(lambda: Program.from_mapping({"a": spec(outputs=outputs)}))
        assert (said.removeprefix("node 'a': ").startswith(says), where) == (True, ("a", "outputs", *path)), said
    said, where = complaint(lambda: Predict("x", output=outputs))
    assert (said.startswith(says), where) == (True, ("outputs", *path)), said


def test_a_mistake_in_a_type_of_a_task_is_named_by_file_and_line(make_task: Callable[..., Path]) -> None:
    outputs = {"reason": "text", "kind": {"schema": {"type": "string", "format": "date"}}}
    file = make_task(program={"kind": spec(outputs=outputs)})
    task = load_task(file)
    said, _ = complaint(lambda: declared_program(task, load_splits(task)))
    line = task.lines[("program", "kind", "outputs", "kind", "schema", "format")]
    assert said.startswith(f"{file}:{line}: node 'kind': kind: unsupported keyword 'format'")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: typed({"x": "int"}, choices=("a", "b")), "closed choices need exactly one output, of text"),
        (lambda: typed(()), "at least one output is needed"),
        (
            lambda: typed({f"x{n}": {"regex": f"[a-{chr(98 + n)}]{{0,2000}}"} for n in range(9)}),
            "outputs: a grammar of",
        ),
    ],
)
def test_outputs_that_cannot_be_are_refused_when_the_program_is_made(build: Callable[[], Any], says: str) -> None:
    said, where = complaint(build)
    assert said.startswith(says)
    assert where == ("outputs",)


def test_demos_of_typed_fields_are_shown_in_their_canonical_form() -> None:
    demo = {"inputs": {"question": "?"}, "outputs": {"why": " x ", "tags": ["a", "é"], "amount": "007.50"}}
    program = typed({"why": "text", "tags": {"list": "text"}, "amount": "float"}).replace({"node.demos": [demo]})
    kept = Demo({"question": "?"}, {"why": " x ", "tags": '["a","é"]', "amount": "7.5"})
    assert program.parameters["node.demos"].value == (kept,)
    assert Program.from_mapping(program.to_mapping()) == program
    assert typed({"amount": "float"}, demos=(Demo({"question": "?"}, {"amount": "1"}),)) == typed(
        {"amount": "float"}, demos=(Demo({"question": "?"}, {"amount": "1.0"}),)
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x", "demos: amount: expected a number, found 'x'"),
        (True, "demos: amount: expected a number, found 'true'"),
        (float("nan"), "demos: amount: expected plain data, found nan"),
        ({1, 2}, "demos: amount: expected plain data, found {1, 2}"),
    ],
)
def test_a_demo_of_another_type_is_refused_with_its_place(value: Any, says: str) -> None:
    demos = [{"inputs": {"question": "?"}, "outputs": {"amount": number}} for number in ("1", value)]
    said, where = complaint(lambda: Program.from_mapping({"a": spec(outputs={"amount": "float"}, demos=demos)}))
    assert said.startswith(f"node 'a': {says}")
    assert where == ("a", "demos", 1, "outputs", "amount")


def layer_result(layer: PredictLayer, completion: Completion) -> tuple[Generate, Any]:
    """What a layer asks for, and what it makes of the completion."""
    flow = layer.flow({"question": "?"})
    request = next(flow)
    assert isinstance(request, Generate)
    with pytest.raises(StopIteration) as done:
        flow.send(completion)
    return request, done.value.value


def test_a_layer_asks_with_its_grammar_and_gives_canonical_texts(
    scripted_runtime: Callable[..., Any],
) -> None:
    asked: list[Request] = []

    def script(request: Request, prompt: str) -> str:
        asked.append(request)
        return ' because\nAmount: 7.50\nTags: ["x", "y"]\n'

    outputs: Mapping[str, Any] = {"why": "text", "amount": "float", "tags": {"list": "text"}}
    prediction = bind(typed(outputs), scripted_runtime(script))(question="?")
    assert prediction.outputs == {"node.why": "because", "node.amount": "7.5", "node.tags": '["x","y"]'}
    (request,) = asked
    assert isinstance(request, Generate)
    assert request.grammar == reply_grammar(as_fields(outputs), chat=True)
    assert isinstance(request.prompt, Chat)
    assert (request.prompt.lead, request.stop) == ("Why:", ())


@pytest.mark.parametrize(
    ("output", "text", "finish", "error"),
    [
        ("int", "42", "stop", None),
        ("int", "42\n", "length", None),
        ("int", "42", "length", "unparsed: the reply was truncated at 9 tokens"),
        ("int", "-", "length", "unparsed: the reply was truncated at 9 tokens"),
        ("int", "many", "stop", "unparsed: answer: expected a whole number, found 'many'"),
        ("bool", "true", "length", None),
        ("bool", "tru", "length", "unparsed: the reply was truncated at 9 tokens"),
        (TYPES["choices"], "no", "length", None),
        (TYPES["choices"], "yes", "length", "unparsed: the reply was truncated at 9 tokens"),
        (TYPES["texts"], '["a"]', "length", None),
        (TYPES["texts"], '["a"', "length", "unparsed: the reply was truncated at 9 tokens"),
        (TYPES["number"], "12", "length", "unparsed: the reply was truncated at 9 tokens"),
        ("text", "cut off", "length", None),
    ],
)
def test_a_reply_that_was_cut_off_is_an_error_of_that_execution(
    output: Any, text: str, finish: Literal["stop", "length"], error: str | None
) -> None:
    layer = Predict("Answer.", output={"answer": output}, max_tokens=9)
    _, result = layer_result(layer, Completion(text=text, finish=finish, generated_tokens=9))
    assert result.error == error
    assert bool(result.outputs) == (error is None)


def test_a_reply_cut_off_before_its_last_field_is_truncated_and_a_last_text_is_not() -> None:
    layer = Predict("Answer.", output={"paid": "bool", "why": "text"})
    choice = Predict("Answer.", output={"paid": "bool", "kind": TYPES["choices"]})
    _, result = layer_result(choice, Completion(text=" true\nKind: yes", finish="length", generated_tokens=9))
    assert result.error == "unparsed: the reply was truncated at 9 tokens"
    for text, error in ((" tru", "unparsed: the reply was truncated at 9 tokens"), (" true\nWhy: bec", None)):
        _, result = layer_result(layer, Completion(text=text, finish="length", generated_tokens=9))
        assert result.error == error


def test_plain_text_ends_at_stops_only_where_the_last_field_is_text() -> None:
    for output, stop in (("int", ()), ("text", ("\n\n", "\nQuestion:"))):
        layer = Predict("Answer.", output={"paid": "bool", "answer": output}, style="plain")
        request, _ = layer_result(layer, Completion(text=" true\nAnswer: 1", finish="stop"))
        assert request.stop == stop
