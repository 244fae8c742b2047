"""Opening a runtime: a model by name, a store, and the services that layers ask for."""

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.errors import LocalgradError
from engine.inference.backend import Backend
from engine.inference.opening import open_backend
from engine.inference.runtime import Runtime
from engine.inference.service import Service
from engine.program.graph import Program
from engine.program.layer import Outside
from engine.records import Role
from engine.retrieval.index import find_build
from engine.retrieval.opening import embedder_weights
from engine.retrieval.recipe import INDEXES
from engine.retrieval.service import RetrievalService
from engine.sandbox.service import SandboxService
from engine.sandbox.sql import schema_of
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings
from engine.tools.service import ToolService


def open_runtime(
    model: str,
    *,
    optimizer_model: str | None = None,
    store: str | Path = ".localgrad/store.db",
    folder: str | Path = ".",
    settings: RuntimeSettings | None = None,
) -> Runtime:
    """A runtime on a model by name, with a store of its own, for use from Python as a context manager.

    Relative paths of models, tools and databases start from `folder`, and indexes lie in `folder`/indexes.
    `optimizer_model` writes critiques and edits; by default the model itself.

    Raises:
        ModelMissing, ModelError: as `open_backend`.
        StoreError: the store cannot be opened.
    """
    settings = settings or RuntimeSettings()
    opened = Store(store)
    base = Path(folder)
    backends: dict[Role, Backend] = {"task": open_backend(model, base, settings)}
    if optimizer_model and optimizer_model != model:
        backends["optimizer"] = open_backend(optimizer_model, base, settings)
    return Runtime(backends, opened, services(base))


def check_outside(program: Program, folder: Path, where: Callable[[str], str]) -> None:
    """See that what a program needs beside itself is there, before a model is loaded for it.

    `where` says who names a thing, by its name.

    Raises:
        UsageError, ContentError, ModelError: it is not there, or cannot be used.
    """
    for need, error in absences(program, folder):
        raise type(error)(f"{where(need.name)}: {error}") from None


def absences(program: Program, folder: Path) -> Iterator[tuple[Outside, LocalgradError]]:
    """What a program needs beside itself and is not there, or cannot be used, and why."""
    tools = ToolService(folder)
    for need in program.outside:
        try:
            _check(need, folder, tools)
        except LocalgradError as error:
            yield need, error


def _check(need: Outside, folder: Path, tools: ToolService) -> None:
    if need.kind == "index":
        find_build(need.name, folder / INDEXES)
    elif need.kind == "embedder":
        embedder_weights(need.name, folder)
    elif need.kind == "tool":
        tools.function(need.name)
    else:
        schema_of(folder / need.name)


def services(folder: Path) -> dict[Role, Service]:
    """What answers requests that no model answers. Each loads what it needs when it is first asked."""
    return {
        "retrieval": RetrievalService(folder),
        "sandbox": SandboxService(folder),
        "tools": ToolService(folder),
    }
