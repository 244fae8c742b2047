"""Rows: what stands in a JSONL, CSV or TSV file arrives unchanged, and a bad row is named by file and line."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContentError, LocalgradError, UsageError
from engine.tasks.rows import read_rows
from engine.tasks.schema import Data, Split
from engine.tasks.splits import example_of

TEXT = st.text(st.characters(codec="utf-8"))


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ContentError) as caught:
        read_rows(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def survives(path: Path) -> None:
    """Reading gives texts or a `LocalgradError` of one line with the path, never anything else."""
    said = f"{path}:"
    try:
        for row in read_rows(path):
            for field in row.values:
                row.text(field)
    except LocalgradError as error:
        said = str(error)
    assert said.startswith(f"{path}:")
    assert "\n" not in said


def test_jsonl_rows_keep_their_line_numbers_over_blank_lines(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "a.jsonl", '\n{"q": "one"}\n\n   \n{"q": "two"}'))
    assert [(row.line, row.text("q")) for row in rows] == [(2, "one"), (5, "two")]
    assert rows[1].origin == f"{tmp_path}/a.jsonl:5"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "1"),
        ("1.5", "1.5"),
        ("true", "true"),
        ('""', ""),
        ('["é", 1]', '["é", 1]'),
        ('{"a": null}', '{"a": null}'),
        ('"\\u2028 \\ud83d\\ude00"', "\u2028 😀"),
    ],
)
def test_a_field_that_is_no_text_reads_as_json_writes_it(tmp_path: Path, value: str, text: str) -> None:
    (row,) = read_rows(written(tmp_path, "a.ndjson", f'{{"q": {value}}}\n'))
    assert row.text("q") == text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"q": 1}\n{"q": \n', "a.jsonl:2: not JSON: Expecting value"),
        ('{"q": 1}\n{"q": 1} {}\n', "a.jsonl:2: not JSON: Extra data"),
        ('{"q": 1}\n[1]\n', "a.jsonl:2: a row is a JSON object, found list"),
        ('{"q": 1}\nnull\n', "a.jsonl:2: a row is a JSON object, found NoneType"),
        ('{"q": NaN}\n', "a.jsonl:1: not JSON: NaN is no JSON value, write null or leave the field out"),
        ('{"q": [-Infinity]}\n', "a.jsonl:1: not JSON: -Infinity is no JSON value, write null or leave the field out"),
        ('{"q": ' + "9" * 5000 + "}\n", "a.jsonl:1: not JSON: Exceeds the limit (4300 digits)"),
        ('{"q": 1}\n' + "[" * 100_000, "a.jsonl:2: not JSON: nested too deeply"),
        ('{"q": 1}\n{"q": "\\ud83d"}\n', "a.jsonl:2: an escape stands for half a character, which is no text"),
        (b'{"q": 1}\n\n{"q": "\xe9"}\n', "a.jsonl:3: not UTF-8 text"),
    ],
)
def test_a_bad_json_row_is_named_by_its_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    said = complaint(written(tmp_path, "a.jsonl", content))
    assert said.startswith(says)
    assert "\n" not in said


@pytest.mark.parametrize("depth", [100, 480, 900, 990])
def test_a_deeply_nested_field_is_read_or_refused_but_never_breaks(tmp_path: Path, depth: int) -> None:
    survives(written(tmp_path, "a.jsonl", f'{{"q": {"[" * depth}{"]" * depth}}}\n'))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"a": 1, "b": 2}', "no field 'q' in this row; its fields: a, b"),
        ("{}", "no field 'q' in this row; its fields: none"),
        ('{"q": null}', "field 'q' is empty"),
    ],
)
def test_an_absent_field_is_named_with_the_fields_there_are(tmp_path: Path, row: str, says: str) -> None:
    path = written(tmp_path, "a.jsonl", f"\n{row}\n")
    with pytest.raises(ContentError) as caught:
        read_rows(path)[0].text("q")
    assert str(caught.value) == f"{path}:2: {says}"


def test_csv_cells_keep_quotes_commas_and_line_breaks_and_rows_the_line_they_begin_on(tmp_path: Path) -> None:
    content = 'q,label\n"one, ""two""\nthree",a\n\nfour,b\n"five\n\nsix",c\nseven,d\n'
    rows = read_rows(written(tmp_path, "a.csv", content))
    assert [(row.line, row.text("q"), row.text("label")) for row in rows] == [
        (2, 'one, "two"\nthree', "a"),
        (5, "four", "b"),
        (6, "five\n\nsix", "c"),
        (9, "seven", "d"),
    ]


def test_tsv_cells_are_parted_by_tabs(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path, "a.tsv", "q\tlabel\none, two\ta\n"))
    assert dict(row.values) == {"q": "one, two", "label": "a"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("q,label\na,b\nc\n", "a.csv:3: 1 cells where the header has 2"),
        ('q,label\n"x\ny",b\nc,d,e\n', "a.csv:4: 3 cells where the header has 2"),
        ("\nq, q\na,b\n", "a.csv:2: a column name stands twice in the header"),
        ('q,label\na,b\n"never closed,d\ne,f\n', "a.csv:3: not a table: unexpected end of data"),
        ('q,label\n"a"x,b\n', "a.csv:2: not a table: ',' expected after '\"'"),
        ("q,label\na\rb,c\n", "a.csv:2: not a table: new-line character seen in unquoted field"),
        ("q,label\n" + "x" * 200_000 + ",b\n", "a.csv:2: not a table: field larger than field limit"),
        (b"q,label\na,b\n\xff,c\n", "a.csv:3: not UTF-8 text"),
    ],
)
def test_a_bad_table_row_is_named_by_the_line_it_begins_on(tmp_path: Path, content: str | bytes, says: str) -> None:
    assert complaint(written(tmp_path, "a.csv", content)).startswith(says)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("dress", ["\ufeff{}", "crlf {}", "\ufeffcrlf {}"])
def test_byte_order_mark_and_crlf_change_nothing(tmp_path: Path, name: str, dress: str) -> None:
    content = '{"q": "one"}\n\n{"q": "two"}\n' if name.endswith("jsonl") else 'q,b\n"one\nmore",1\n\ntwo,2\n'
    plain = read_rows(written(tmp_path, name, content))
    content = content.replace("\n", "\r\n") if "crlf" in dress else content
    dressed = read_rows(written(tmp_path, name, ("\ufeff" if dress[0] == "\ufeff" else "") + content))
    assert dressed == plain
    assert len(plain) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert read_rows(written(tmp_path, name, "")) == []
    assert read_rows(written(tmp_path, name, "\ufeff\n")) == []


@pytest.mark.parametrize(("name", "ending"), [("a.parquet", ".parquet"), ("a", "without an ending")])
def test_another_ending_is_refused_with_the_ones_there_are(tmp_path: Path, name: str, ending: str) -> None:
    assert complaint(written(tmp_path, name, "")) == f"{name}: rows come as .jsonl, .csv or .tsv, not {ending}"


def test_an_absent_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_rows(tmp_path / "a.jsonl")


@given(TEXT, TEXT, st.booleans())
def test_any_text_in_a_jsonl_field_reaches_the_example_unchanged(
    tmp_path: Path, question: str, label: str, escaped: bool
) -> None:
    line = json.dumps({"q": question, "label": label}, ensure_ascii=escaped)
    data = Data(train=Split(path="a.jsonl"), inputs={"question": "q"}, target="label")
    (row,) = read_rows(written(tmp_path, "a.jsonl", line + "\n"))
    example = example_of(row, data)
    assert (example.inputs, example.accepted) == ({"question": question}, (label,))


@given(TEXT, TEXT, st.sampled_from([",", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_any_text_in_a_quoted_cell_reaches_the_example_unchanged(
    tmp_path: Path, question: str, label: str, delimiter: str, line_end: str
) -> None:
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(
        [["q", "label", "more"], [question, label, "not blank"]]
    )
    data = Data(train=Split(path="x"), inputs={"question": "q"}, target="label")
    (row,) = read_rows(written(tmp_path, "a.csv" if delimiter == "," else "a.tsv", table.getvalue()))
    example = example_of(row, data)
    # a CRLF reads as LF, so that a checkout with other line ends asks the same
    assert (example.inputs["question"], example.target) == (question.replace("\r\n", "\n"), label.replace("\r\n", "\n"))


@given(st.binary(max_size=120), st.sampled_from(["a.jsonl", "a.csv", "a.tsv"]))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path: Path, content: bytes, name: str) -> None:
    survives(written(tmp_path, name, content))


@given(st.text(alphabet='{}[]",:\n\r\t\\u0ab1.e- ', max_size=40), st.sampled_from(["a.jsonl", "a.csv", "a.tsv"]))
def test_arbitrary_signs_of_the_formats_never_raise_anything_else(tmp_path: Path, content: str, name: str) -> None:
    survives(written(tmp_path, name, content))
