"""Opening a model by name: the one place that decides which backend serves it."""

import re
from pathlib import Path

from engine.errors import ModelError
from engine.inference.backend import Backend
from engine.inference.local.profiles import Profile, machine_key
from engine.inference.models import ModelFile, find_model
from engine.inference.remote.address import is_address
from engine.inference.scripted import ScriptedBackend, keyword_script
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
    return _open_file(find_model(name, folder), settings)


def is_file(name: str) -> bool:
    """Whether a name stands for a model file, not for a server or the scripted backend."""
    return not _SCRIPTED.fullmatch(name) and not is_address(name)


def _open_file(model: ModelFile, settings: RuntimeSettings) -> Backend:
    """The model as `localgrad tune` found it best; as it is where nothing was found or the copy cannot be had."""
    from engine.inference.local.backend import LlamaBackend
    from engine.inference.local.layouts import laid_out  # here, because importing llama_cpp takes 0.3 s
    from engine.inference.local.llama import build_identity

    profile = Profile(model.sha256, machine_key(build_identity()))
    tuning = profile.tuning(settings.deterministic in (True, "preferred")) if settings.tune else None
    note = ""
    if tuning:
        try:
            return LlamaBackend(laid_out(model, tuning.layout), model.sha256, model.name, settings, tuning)
        except ModelError as error:
            note = f"{model.name} runs as it is, without the tuning found for it: {error}"
    backend = LlamaBackend(model.path, model.sha256, model.name, settings)
    backend.notes += (note,) if note else ()
    return backend


def _open_remote(name: str, settings: RuntimeSettings) -> Backend:
    try:
        from engine.inference.remote.backend import RemoteBackend  # here, because httpx comes with an extra
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ModelError("a model on a server needs httpx: pip install 'localgrad[remote]'") from None
    return RemoteBackend(name, settings)
