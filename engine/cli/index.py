"""localgrad index: build retrieval indexes, search them, and say what they hold."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from engine.cli import terminal
from engine.cli.progress import working
from engine.errors import LocalgradError, UsageError
from engine.records import RetrievalMode
from engine.retrieval.building import build
from engine.retrieval.documents import read_documents
from engine.retrieval.index import MODES, open_index
from engine.retrieval.opening import is_path, open_embedder
from engine.retrieval.recipe import CHUNK, INDEXES, KINDS, OVERLAP, Kind, Recipe, read_recipe, recipe_path, write_recipe
from engine.retrieval.stored import Manifest, built

_SHOWN = 300  # characters of a passage


def _common(command: Callable[..., int]) -> Callable[..., int]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--indexes", "folder", default=INDEXES, show_default=True, metavar="FOLDER",
            type=click.Path(path_type=Path, file_okay=False), help="Where recipes and built indexes lie.",
        ),
        click.argument("name"),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group("index")
def command() -> None:
    """Build retrieval indexes, search them, and say what they hold."""


@command.command("build")
@_common
@click.option("--docs", multiple=True, metavar="PATTERN", help="Files of text, or of rows with a field `text`.")
@click.option("--chunk", type=click.IntRange(min=8), help=f"Tokens of a chunk.  [default: {CHUNK}]")
@click.option("--overlap", type=click.IntRange(min=0), help=f"Tokens that chunks share.  [default: {OVERLAP}]")
@click.option("--embedder", help="A name, a folder of sentence-transformers, or a .gguf file.")
@click.option("--kind", type=click.Choice(KINDS), help="How vectors are indexed.  [default: auto, by their number]")
def build_command(
    name: str, folder: Path, as_json: bool, docs: tuple[str, ...], chunk: int | None, overlap: int | None,
    embedder: str | None, kind: Kind | None,
) -> int:  # fmt: skip
    """Build the index NAME by its recipe; what is given here is written into the recipe first.

    Chunks that did not change since the last build are not embedded again.
    """
    path = recipe_path(name, folder)
    if embedder and is_path(embedder, Path()):
        embedder = _from_folder(embedder, folder)
    given: dict[str, Any] = {"chunk": chunk, "overlap": overlap, "embedder": embedder, "kind": kind}
    changes = {key: value for key, value in given.items() if value is not None}
    patterns = tuple(_from_folder(pattern, folder) for pattern in docs)
    recipe = _recipe(path, patterns, changes)
    documents = read_documents(recipe.docs, folder)
    try:
        with working() as report:
            report("loading the embedder")
            with closing(open_embedder(recipe.embedder, folder)) as model:
                place, manifest = build(name, recipe, documents, folder, model, report)
    except KeyboardInterrupt:
        terminal.complain("interrupted; chunks embedded so far are kept, so the same command goes on where it stopped")
        return 130
    if patterns or changes or not path.is_file():
        write_recipe(recipe, path)
    facts = _facts(name, place, manifest)
    if as_json:
        terminal.print_result(facts)
        return 0
    terminal.say(
        f"{name}: {manifest.documents:,} documents, {manifest.chunks:,} chunks, {manifest.embedded:,} embedded now, "
        f"{manifest.kind}, {facts['bytes'] / 1e6:.1f} MB, {terminal.duration(manifest.seconds)}"
    )
    terminal.say(f"recipe  {terminal.nearby(path)}")
    terminal.say(f"built   {terminal.nearby(place)}")
    where = "" if folder == Path(INDEXES) else f" --indexes {terminal.nearby(folder)}"
    terminal.say(f'search  {terminal.own_name()} index query {name} "…"{where}')
    return 0


@command.command("query")
@_common
@click.argument("text")
@click.option("-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="How many passages.")
@click.option(
    "--mode", default="hybrid", show_default=True, type=click.Choice(MODES), help="By meaning, words or both."
)
@click.option("--threshold", type=float, help="No passage of a lower score.")
def query_command(
    name: str, folder: Path, as_json: bool, text: str, k: int, mode: RetrievalMode, threshold: float | None
) -> int:
    """Search the index NAME for TEXT."""
    if not text.strip():
        raise UsageError("the query is empty")
    index = open_index(name, folder)
    if mode == "lexical":
        passages = index.search([text], None, k, mode, threshold)[0]
    else:
        with closing(open_embedder(index.manifest.embedder, folder)) as embedder:
            passages = index.search([text], embedder, k, mode, threshold)[0]
    if as_json:
        terminal.print_result({"index": name, "mode": mode, "passages": [asdict(passage) for passage in passages]})
        return 0
    for number, passage in enumerate(passages, 1):
        head = [passage.id, passage.title, f"{passage.score:.4f}"]
        terminal.say(f"{number}. {' · '.join(part for part in head if part)}")
        shown = " ".join(passage.text.split())
        terminal.say(f"   {shown[:_SHOWN]}{'…' if len(shown) > _SHOWN else ''}")
    if not passages:
        terminal.say("nothing found")
    return 0


@command.command("info")
@_common
def info_command(name: str, folder: Path, as_json: bool) -> int:
    """Say what the index NAME is made of and what was built."""
    recipe = read_recipe(recipe_path(name, folder))
    builds = [_facts(name, place, manifest) for place, manifest in built(folder / name)]
    why = _why_not_ready(name, folder)
    if as_json:
        terminal.print_result(
            {"index": name, "recipe": asdict(recipe), "built": builds, "ready": why is None, "why": why}
        )
        return 0 if why is None else 1
    for key, value in asdict(recipe).items():
        terminal.say(f"{key:<9} {', '.join(value) if isinstance(value, tuple) else value}")
    for facts in builds:
        terminal.say(
            f"built     {facts['documents']:,} documents, {facts['chunks']:,} chunks of {facts['dimension']} numbers, "
            f"{facts['kind']}, {facts['bytes'] / 1e6:.1f} MB: {terminal.nearby(Path(facts['folder']))}"
        )
    terminal.say(f"state     {why or 'ready'}")
    return 0 if why is None else 1


def _why_not_ready(name: str, folder: Path) -> str | None:
    """Why the index cannot be queried; None where it can."""
    try:
        open_index(name, folder)
    except LocalgradError as error:
        return str(error)
    return None


def _from_folder(path: str, folder: Path) -> str:
    """A path as the recipe has it, which starts from the recipe's folder."""
    return os.path.relpath(Path(path).expanduser().absolute(), folder.absolute())


def _recipe(path: Path, patterns: tuple[str, ...], changes: dict[str, Any]) -> Recipe:
    """The recipe with what was given; a new one needs documents."""
    if path.is_file():
        return replace(read_recipe(path), **(changes | ({"docs": patterns} if patterns else {})))
    if not patterns:
        raise UsageError(f"{path}: no such recipe; to make it: --docs PATTERN, a file or as many as match")
    return Recipe(docs=patterns, **changes)


def _facts(name: str, place: Path, manifest: Manifest) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    facts = asdict(manifest) | {"index": name, "folder": str(place), "bytes": size}
    del facts["files"]
    return facts
