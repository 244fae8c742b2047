"""Saved programs: one self-contained YAML file that holds all it takes to run the program again.

It names the model and the hash of its file, the program with its labels and inputs, and nothing that depends on when
it was written: equal programs give equal bytes. Where a program needs more than the model (layers of the user's own,
indexes, tools), the file names the folder they are in, from its own place.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import engine.program.layers  # noqa: F401 (makes the layers known)
from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.userlayers import load_layers
from engine.tasks.taskfile import nearest, read_yaml

_KEYS = ["localgrad", "name", "model", "folder", "layers", "program"]
_MODEL_KEYS = ["name", "sha256"]


@dataclass(frozen=True, slots=True)
class SavedProgram:
    """A program with the model it was made for. `model_sha256` hashes its file; it is empty for a model without one.

    `folder` is where paths in the program start from, and those of `layers`, files with layers of the user's own.
    """

    name: str
    model: str
    model_sha256: str
    program: Program
    folder: Path = field(default=Path(), compare=False)
    layers: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        mapping: dict[str, Any] = {"localgrad": 1, "name": self.name}
        mapping["model"] = {"name": self.model, "sha256": self.model_sha256}
        if self.layers or self.program.outside:
            mapping["folder"] = Path(os.path.relpath(self.folder, path.parent)).as_posix()
        if self.layers:
            mapping["layers"] = list(self.layers)
        mapping["program"] = self.program.to_mapping()
        text = yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(path.suffix + ".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def load_saved(path: Path) -> SavedProgram:
    """Read a saved program.

    Raises:
        UsageError: there is no such file.
        ContentError: it is no saved program; the message starts with file:line.
    """
    data, lines, _ = read_yaml(path)
    model = data.get("model")
    if data.get("localgrad") != 1 or not isinstance(model, Mapping) or not isinstance(data.get("program"), Mapping):
        raise ContentError(f"{path}:1: not a saved program: it needs localgrad: 1, a model and a program")
    places = [((key,), _KEYS) for key in data] + [(("model", key), _MODEL_KEYS) for key in model]
    for place, known in places:
        if place[-1] not in known:
            raise ContentError(f"{path}:{lines[place]}: unknown key {place[-1]!r}: {nearest(place[-1], known)}")
    for key in _MODEL_KEYS:
        if not isinstance(model.get(key), str):
            line = lines.get(("model", key), lines[("model",)])
            raise ContentError(f"{path}:{line}: model.{key}: expected text in quotes, found {model.get(key)!r}")
    folder, layers = data.get("folder", "."), data.get("layers", [])
    if not isinstance(folder, str):
        raise ContentError(f"{path}:{lines[('folder',)]}: folder: expected text in quotes, found {folder!r}")
    if not isinstance(layers, list) or not all(isinstance(file, str) for file in layers):
        raise ContentError(f"{path}:{lines[('layers',)]}: layers: expected a list of files, found {layers!r}")
    load_layers(layers, Path(os.path.normpath(path.parent / folder)), f"{path}:{lines.get(('layers',), 1)}")
    try:
        program = Program.from_mapping(data["program"])
    except ContentError as error:
        wrong: tuple[str | int, ...] = ("program", *error.path)
        while wrong not in lines:
            wrong = wrong[:-1]
        raise ContentError(f"{path}:{lines[wrong]}: {error}") from None
    name = str(data.get("name", path.stem))
    return SavedProgram(
        name, model["name"], model["sha256"], program, Path(os.path.normpath(path.parent / folder)), tuple(layers)
    )


def is_saved_program(path: Path) -> bool:
    """Whether a YAML file is meant as a saved program rather than as a task."""
    data, _, _ = read_yaml(path)
    return "localgrad" in data


class _Dumper(yaml.SafeDumper):
    """Block style for text of several lines, flow style for short mappings of numbers."""


_ODD_BREAKS = frozenset("\x85\u2028\u2029")  # YAML 1.1 ends a line at them, so only an escape keeps them


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if _ODD_BREAKS & set(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.MappingNode:
    numbers = bool(value) and all(isinstance(item, float) for item in value.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=numbers)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
