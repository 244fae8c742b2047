"""Reading documents: text files by pattern, and rows of JSONL files with a field `text`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ContentError, UsageError
from engine.tasks.rows import read_rows
from engine.tasks.textfile import read_text

_ROWS = {".jsonl", ".ndjson", ".csv", ".tsv"}


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name that is unique among the documents of an index; `title` may be empty."""

    id: str
    text: str
    title: str = ""


def read_documents(patterns: Sequence[str], folder: Path) -> list[Document]:
    """The documents of files whose names match, in the order of patterns and names; each file once.

    Patterns start from `folder`. A file of rows gives a document for each: fields `text` and, where there are such,
    `id` and `title`. Any other file is one document, named by its path.

    Raises:
        UsageError: a pattern matches no file.
        ContentError: a file cannot be read, a row has no text, or two documents have one name.
    """
    found: dict[str, Document] = {}
    for path in _matching(patterns, folder):
        for place, document in _of_rows(path, folder) if path.suffix.lower() in _ROWS else _of_text(path, folder):
            if document.id in found:
                raise ContentError(f"{place}: another document is named {document.id!r}, too")
            found[document.id] = document
    if not any(document.text.strip() for document in found.values()):
        raise ContentError(f"{', '.join(patterns)}: no text in these documents")
    return list(found.values())


def _matching(patterns: Sequence[str], folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for pattern in patterns:
        parts = (folder / Path(pattern).expanduser()).parts
        fixed = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
        root = Path(os.path.normpath(Path(*parts[:fixed])))
        paths = sorted(path for path in root.glob(str(Path(*parts[fixed:]))) if path.is_file())
        if not paths:
            asked = os.path.normpath(Path(*parts))
            if Path(asked).is_dir():
                raise UsageError(f"{asked}: a folder; name its files, as in '{asked}/**/*.md'")
            raise UsageError(f"{asked}: no such file")
        yield from (path for path in paths if path not in seen)
        seen.update(paths)


def _of_text(path: Path, folder: Path) -> Iterator[tuple[str, Document]]:
    yield str(path), Document(_name(path, folder), read_text(path), path.stem)


def _of_rows(path: Path, folder: Path) -> Iterator[tuple[str, Document]]:
    for row in read_rows(path):
        if not isinstance(row.values.get("text", ""), str):
            raise ContentError(f"{row.origin}: field 'text' is no text")
        title = row.text("title") if row.values.get("title") is not None else ""
        name = row.text("id") if row.values.get("id") is not None else f"{_name(path, folder)}:{row.line}"
        yield row.origin, Document(name, row.text("text"), title)


def _name(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
