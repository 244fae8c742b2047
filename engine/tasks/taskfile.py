"""Reading a task file: YAML text in, a `Task` out, every mistake named by file and line.

Parsing keeps the line of every key, checks shapes with pydantic once, and offers the nearest known key for an
unknown one. It knows nothing of rows or programs.
"""

import difflib
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from engine.errors import ContentError, UsageError
from engine.tasks.budget import Budget
from engine.tasks.schema import Task, TaskFile

Place = tuple[str | int, ...]

_MAX_BYTES = 4_000_000


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
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.stat().st_size > _MAX_BYTES:
        raise ContentError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no task or program file needs")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ContentError(f"{path}: not UTF-8 text") from None
    lines: dict[Place, int] = {}
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        data = _plain(loader, root, (), lines, path) if root else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ContentError(f"{path}:{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ContentError(f"{path}:1: not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise ContentError(f"{path}:1: expected a mapping of keys, found {_kind(data)}")
    return data, lines, text


def nearest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` for the known word most like `word`, else the known words themselves."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _plain(loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[Hashable, Any] = {}
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ContentError(f"{path}:{line}: keys must be text, found {key!r}")
            if key in result:
                raise ContentError(f"{path}:{line}: {key!r} stands here twice")
            result[key] = _plain(loader, value_node, (*place, key), lines, path)
            lines[(*place, key)] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _explain(error: ValidationError, path: Path, data: Mapping[str, Any], lines: Mapping[Place, int]) -> str:
    """The first mistake as one line. Of a union's several complaints, the one about the form that was meant."""
    problems = error.errors(include_url=False, include_context=True)
    problem = next((p for p in problems if p["type"] == "unexpected_keyword_argument"), problems[0])
    place = _real_place(problem["loc"], data)
    line = next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 1)
    name = ".".join(str(part) for part in place)
    if problem["type"] == "unexpected_keyword_argument":
        return f"{path}:{line}: unknown key {name!r}: {nearest(str(place[-1]), _known_keys(place[:-1]))}"
    if problem["type"] == "missing":
        return f"{path}:{line}: {name!r} is missing"
    found = problem["input"]
    wanted = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{path}:{line}: {name}: {wanted}, found {_kind(found)}"


def _real_place(loc: tuple[int | str, ...], data: Any) -> Place:
    """pydantic's location without the names of union members it adds."""
    place: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, Mapping) and (part in data or index == len(loc) - 1):
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
