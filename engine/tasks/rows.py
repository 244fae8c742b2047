"""Reading rows: JSONL, CSV and TSV files, every bad row named by file and line."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ContentError
from engine.tasks.textfile import is_whole, read_text

_JSON_LINES = {".jsonl", ".ndjson"}
_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in its file."""

    path: Path
    line: int
    values: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """`file:line`."""
        return f"{self.path}:{self.line}"

    def text(self, name: str) -> str:
        """A field as text: numbers and booleans as JSON writes them, lists and mappings as JSON.

        Raises:
            ContentError: the field is absent, empty (null) or nested too deeply.
        """
        if name not in self.values:
            known = ", ".join(map(str, self.values)) or "none"
            raise ContentError(f"{self.origin}: no field {name!r} in this row; its fields: {known}")
        value = self.values[name]
        if value is None:
            raise ContentError(f"{self.origin}: field {name!r} is empty")
        try:
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except RecursionError:
            raise ContentError(f"{self.origin}: field {name!r} is nested too deeply") from None


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in order. Blank lines are skipped; a CRLF reads as LF, inside a cell too.

    Raises:
        UsageError: there is no such file.
        ContentError: an unknown ending, or a row that cannot be read.
    """
    ending = path.suffix.lower()
    if ending not in _JSON_LINES and ending not in _TABLES:
        raise ContentError(f"{path}: rows come as .jsonl, .csv or .tsv, not {ending or 'without an ending'}")
    lines = read_text(path).split("\n")  # at line ends only: JSON text may hold other Unicode separators
    rows = _json_rows(path, lines) if ending in _JSON_LINES else _table_rows(path, lines, _TABLES[ending])
    return list(rows)


def json_row(path: Path, line_number: int, line: str) -> Row:
    """One line of JSON as a row.

    Raises:
        ContentError: it is no JSON object; the message starts with file:line.
    """
    place = f"{path}:{line_number}"
    try:
        values = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(":")[0] if isinstance(error, ValueError) else "nested too deeply"
        raise ContentError(f"{place}: not JSON: {reason}") from None
    if not isinstance(values, dict):
        raise ContentError(f"{place}: a row is a JSON object, found {type(values).__name__}")
    if "\\u" in line and not is_whole(json.dumps(values, ensure_ascii=False)):
        raise ContentError(f"{place}: an escape stands for half a character, which is no text")
    return Row(path, line_number, values)


def _json_rows(path: Path, lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield json_row(path, number, line)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value, write null or leave the field out")


def _table_rows(path: Path, lines: list[str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, f"{path}:{line}")
            elif len(cells) != len(header):
                raise ContentError(f"{path}:{line}: {len(cells)} cells where the header has {len(header)}")
            else:
                yield Row(path, line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise ContentError(f"{path}:{start}: not a table: {error}") from None


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) != len(names):
        raise ContentError(f"{where}: a column name stands twice in the header")
    return names
