"""Recipes: what an index is made of, one TOML file each, `indexes/<name>.toml`."""

import json
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from engine.errors import ContentError, UsageError
from engine.retrieval.embedder import DEFAULT_EMBEDDER
from engine.tasks.taskfile import nearest

Kind = Literal["auto", "flat", "ivf", "hnsw"]
KINDS: tuple[Kind, ...] = get_args(Kind)

INDEXES = "indexes"  # the folder of a project in which recipes and what was built of them lie
CHUNK, OVERLAP = 256, 32  # tokens of the embedder
_NAME = re.compile(r"[\w-][\w.-]*")


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, slots=True)
class Recipe:
    """Which documents, cut how, embedded by what, indexed how. Patterns of `docs` start from the recipe's folder."""

    docs: tuple[str, ...]
    chunk: int = CHUNK
    overlap: int = OVERLAP
    embedder: str = DEFAULT_EMBEDDER
    kind: Kind = "auto"

    def __post_init__(self) -> None:
        if not self.docs:
            raise ContentError("docs: no pattern of files given")
        if not 8 <= self.chunk <= 8192:
            raise ContentError(f"chunk: {self.chunk} tokens, expected 8 to 8192")
        if not 0 <= self.overlap <= self.chunk // 2:
            raise ContentError(f"overlap: {self.overlap} tokens, expected 0 to {self.chunk // 2}, half a chunk")


def recipe_path(name: str, folder: Path) -> Path:
    """Where the recipe of an index lies.

    Raises:
        UsageError: the name cannot be that of a file.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name an index: letters, digits, '_', '-' and '.'")
    return folder / f"{name}.toml"


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file.

    Raises:
        UsageError: there is no such file.
        ContentError: it is not TOML, or not a recipe.
    """
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.toml"))) or "none"
        raise UsageError(f"{path}: no such index (here: {known}); localgrad index build {path.stem} --docs PATTERN")
    try:
        given = json.dumps(tomllib.loads(path.read_text("utf-8")))
        return TypeAdapter(Recipe).validate_json(given)  # as JSON, so that a list is a tuple and "3" no number
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ContentError(f"{path}: not a recipe: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "unexpected_keyword_argument":
            keys = [each.name for each in fields(Recipe)]
            raise ContentError(f"{path}: unknown key {place!r}: {nearest(place, keys)}") from None
        raise ContentError(f"{path}: {place}: {first['msg'].lower()}") from None
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe; JSON's strings, numbers and lists are TOML's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(recipe).items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")
