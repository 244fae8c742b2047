"""Reading a task file: YAML text in, a `Task` out, every mistake named by file and line.

Parsing keeps the line of every key, checks shapes with pydantic once, and offers the nearest known key for an
unknown one. It knows nothing of rows or programs.
"""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from engine.errors import ContentError
from engine.tasks.budget import Budget
from engine.tasks.schema import Task, TaskFile
from engine.tasks.textfile import is_whole, read_text

Place = tuple[str | int, ...]

_MAX_BYTES = 4_000_000
_MAX_VALUES = 200_000


def load_task(path: str | Path) -> Task:
    """Read and check a task file.

    Raises:
        UsageError: there is no such file.
        ContentError: the file says something it cannot mean; the message starts with file:line.
    """
    path = Path(path)
    data, lines, text = read_yaml(path)
    try:
        parsed = _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise ContentError(_explain(error, path, data, lines)) from None
    task = Task(parsed, path, hashlib.sha256(text.encode()).hexdigest(), lines)
    try:
        Budget.parse(parsed.optimize.budget)
    except ContentError as error:
        raise ContentError(f"{task.where(('optimize', 'budget'))}: {error}") from None
    return task


def override(task: Task, **optimize: Any) -> Task:
    """The same task with settings of its `optimize` section replaced; None leaves a setting as it is."""
    given = {key: value for key, value in optimize.items() if value is not None}
    return replace(task, file=replace(task.file, optimize=replace(task.file.optimize, **given)))


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[Place, int], str]:
    """A YAML mapping as plain data, the line of every place in it, and the text itself.

    Raises:
        UsageError: there is no such file.
        ContentError: not UTF-8, not YAML, a repeated key, or not a mapping.
    """
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise ContentError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no task or program file needs")
    text = read_text(path)
    lines: dict[Place, int] = {}
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data = _plain(loader, root, (), lines, path) if root else None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ContentError(f"{path}:{line}: not YAML: it holds the character U+{error.character:04X}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ContentError(f"{path}:{line}: not YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise ContentError(f"{path}:1: not YAML: nested too deeply") from None
    except (ValueError, OverflowError) as error:  # PyYAML takes any \\U escape to be a character
        raise ContentError(f"{path}:{loader.line + 1}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ContentError(f"{path}:1: expected a mapping of keys, found {_kind(data)}")
    return data, lines, text


def nearest(word: str, known: list[str]) -> str:
    """`did you mean 'x'?` for the known word most like `word`, else the known words themselves."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once in its mapping; a merged one (`<<`) may be written over."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        problem=f"{key.value!r} stands here twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def _plain(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    line = lines[place] = node.start_mark.line + 1
    if len(lines) > _MAX_VALUES:
        raise ContentError(f"{path}:{line}: more than {_MAX_VALUES:,} values, its aliases written out")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = _plain(loader, key_node, (*place, ""), lines, path)
            if not isinstance(key, str):
                raise ContentError(f"{path}:{key_node.start_mark.line + 1}: keys must be text, found {_kind(key)}")
            result[key] = _plain(loader, value_node, (*place, key), lines, path)
            lines[(*place, key)] = key_node.start_mark.line + 1
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, LookupError, AttributeError):  # PyYAML's constructors trust a tag and the form of a date
        kind = node.tag.rpartition(":")[2]
        raise ContentError(f"{path}:{line}: {_kind(node.value)} is no {kind}: quote it if text is meant") from None
    if isinstance(value, str) and not is_whole(value):
        raise ContentError(f"{path}:{line}: an escape stands for half a character, which is no text")
    return value


def _explain(error: ValidationError, path: Path, data: Mapping[str, Any], lines: Mapping[Place, int]) -> str:
    """The first mistake as one line. Of a union's several complaints, the one about the form that was meant."""
    problems = error.errors(include_url=False, include_context=True)
    places = [_real_place(problem["loc"], data, problem["type"] == "missing") for problem in problems]
    found = next((i for i, p in enumerate(problems) if p["type"] == "unexpected_keyword_argument"), None)
    if found is None:
        inside = [i for i, other in enumerate(places) if other[: len(places[0])] == places[0]]
        found = max(inside, key=lambda i: len(places[i]))
    problem, place = problems[found], places[found]
    line = next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 1)
    name = ".".join(str(part) for part in place)
    if problem["type"] == "unexpected_keyword_argument":
        return f"{path}:{line}: unknown key {name!r}: {nearest(str(place[-1]), _known_keys(place[:-1]))}"
    if problem["type"] == "missing":
        return f"{path}:{line}: {name!r} is missing"
    found = problem["input"]
    wanted = _WANTED.get(problem["type"]) or problem["msg"][0].lower() + problem["msg"][1:]
    return f"{path}:{line}: {name}: {wanted}, found {_kind(found)}"


def _real_place(loc: tuple[int | str, ...], data: Any, missing: bool) -> Place:
    """pydantic's location without the names of union members it adds; where a key is missing, it ends in that key."""
    place: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, Mapping) and (part in data or (missing and index == len(loc) - 1)):
            place.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            place.append(part)
            data = data[part]
    return tuple(place)


def _known_keys(place: Place) -> list[str]:
    kind: Any = TaskFile
    for part in place:
        kind = next((hint for name, hint in _named_fields(kind) if name == part), None)
    return [name for name, _ in _named_fields(kind)]


def _named_fields(kind: Any) -> list[tuple[str, Any]]:
    if get_origin(kind) in (Union, UnionType):
        kind = next((member for member in get_args(kind) if is_dataclass(member)), None)
    if not is_dataclass(kind):
        return []
    hints = get_type_hints(kind)
    return [("from" if item.name == "source" else item.name, hints[item.name]) for item in fields(kind)]


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "…"


_ADAPTER = TypeAdapter(TaskFile)
_WANTED = {  # what pydantic says in words of Python
    "dataclass_type": "expected a mapping of keys",
    "mapping_type": "expected a mapping of keys",
    "string_type": "expected text (quote yes, no, on, off, dates and numbers)",
    "tuple_type": "expected a list",
}
