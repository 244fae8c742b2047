"""Opening a model by name: the one place that decides which backend serves it."""

import re
from pathlib import Path

from engine.errors import ModelError
from engine.inference.address import is_address
from engine.inference.backend import Backend
from engine.inference.models import find_model
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend, keyword_script
from engine.records import Role
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings

_SCRIPTED = re.compile(r"scripted(?::(?P<delay>\d+)ms)?")


def open_backend(name: str, folder: Path, settings: RuntimeSettings) -> Backend:
    """Load the model that `name` stands for; relative paths start from `folder`.

    Raises:
        ModelMissing: it is not on this machine.
        ModelError: it cannot be loaded or served.
    """
    scripted = _SCRIPTED.fullmatch(name)
    if scripted:
        return ScriptedBackend(keyword_script, name="scripted", delay_s=int(scripted["delay"] or 0) / 1000)
    if is_address(name):
        return _open_remote(name, settings)
    from engine.inference.local import LlamaBackend  # here, because importing llama_cpp takes 0.3 s

    model = find_model(name, folder)
    return LlamaBackend(model.path, model.sha256, model.name, settings)


def open_runtime(
    model: str,
    *,
    optimizer_model: str | None = None,
    store: str | Path = ".localgrad/store.db",
    folder: str | Path = ".",
    settings: RuntimeSettings | None = None,
) -> Runtime:
    """A runtime on a model by name, with a store of its own, for use from Python as a context manager.

    Relative model paths start from `folder`. `optimizer_model` writes critiques and edits; by default the model itself.

    Raises:
        ModelMissing, ModelError: as `open_backend`.
        StoreError: the store cannot be opened.
    """
    settings = settings or RuntimeSettings()
    opened = Store(store)
    backends: dict[Role, Backend] = {"task": open_backend(model, Path(folder), settings)}
    if optimizer_model and optimizer_model != model:
        backends["optimizer"] = open_backend(optimizer_model, Path(folder), settings)
    return Runtime(backends, opened)


def _open_remote(name: str, settings: RuntimeSettings) -> Backend:
    try:
        from engine.inference.remote import RemoteBackend  # here, because httpx comes with an extra
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ModelError("a model on a server needs httpx: pip install 'localgrad[remote]'") from None
    return RemoteBackend(name, settings)
