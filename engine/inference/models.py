"""Model names: what a person writes for a model, and the file or server it stands for.

smollm2-135m                     a name in a manifest (ours, then the user's own)
path/to/model.gguf               a file
hf:user/repo:QUANT               a file in the local Hugging Face or llama.cpp cache; nothing is downloaded
http://127.0.0.1:8080/v1#name    an OpenAI-compatible server
scripted                         the scripted backend of the tests
"""

import hashlib
import importlib.util
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import ContentError, ModelError, ModelMissing
from engine.tasks.taskfile import nearest

_DEFAULT_QUANT = "Q4_K_M"
_ASKED: Mapping[str, tuple[str, str]] = {  # by role
    "generate": ("model", "a path.gguf"),
    "embed": ("embedder", "a folder of sentence-transformers, a path.gguf"),
}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """An entry of a manifest."""

    name: str
    file: str
    sha256: str | None = None
    package: str | None = None
    role: str = "generate"
    context: int | None = None
    licence: str = ""
    install: str = ""

    def locate(self) -> Path | None:
        """The file on this machine, if it is here. The package that carries it is found without being imported."""
        if self.package is None:
            path = Path(self.file).expanduser()
        else:
            spec = importlib.util.find_spec(self.package)
            if spec is None or spec.origin is None:
                return None
            path = Path(spec.origin).parent / self.file
        return path if path.exists() else None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is here, by the name it was asked for, with the hash of its bytes."""

    name: str
    path: Path
    sha256: str


def find_model(name: str, folder: Path, role: Literal["generate", "embed"] = "generate") -> ModelFile:
    """The file a name stands for; a relative path starts from `folder`.

    Any file will do; `role` says what it is wanted for, and so which names are proposed for one that is unknown.

    Raises:
        ModelMissing: the model is not on this machine.
        ModelError: the file's hash is not the one its manifest gives.
        ContentError: the name has no form that stands for a model.
    """
    if name.startswith("hf:"):
        path = _in_caches(name)
        return ModelFile(name, path, file_sha256(path))
    if name.lower().endswith(".gguf"):
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise ModelMissing(f"{path}: no such model file")
        return ModelFile(name, path, file_sha256(path))
    known = manifest()
    if name not in known:
        noun, forms = _ASKED[role]
        proposed = nearest(name, [entry.name for entry in known.values() if entry.role == role])
        raise ModelMissing(f"unknown {noun} {name!r} (give a name, {forms} or hf:user/repo:QUANT): {proposed}")
    entry = known[name]
    found = entry.locate()
    if found is None:
        raise ModelMissing(f"model {name!r} is not on this machine: {entry.install or entry.file}")
    actual = file_sha256(found)
    if entry.sha256 and actual != entry.sha256:
        raise ModelError(
            f"model {name!r} has sha256 {actual[:12]}…, the manifest says {entry.sha256[:12]}…: "
            "install it again or update the manifest"
        )
    return ModelFile(name, found, actual)


def manifest() -> dict[str, KnownModel]:
    """All models known by name; the user's own entries win over ours.

    Raises:
        ContentError: a manifest is not valid TOML or an entry lacks its file.
    """
    known: dict[str, KnownModel] = {}
    for path in (_shipped_manifest(), user_manifest()):
        if path.is_file():
            known |= _read_manifest(path)
    return known


def user_manifest() -> Path:
    """Where the user's own manifest lies: `$XDG_CONFIG_HOME/localgrad/models.toml`."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "localgrad" / "models.toml"


def cached_models() -> Iterator[tuple[str, Path]]:
    """GGUF files in the local Hugging Face caches, as `hf:user/repo:file` and path."""
    for cache in _caches():
        for path in sorted(cache.glob("models--*/snapshots/*/*.gguf")):
            _, user, repo = [*path.parts[-4].split("--", 2), "", ""][:3]
            yield f"hf:{user}/{repo}:{path.stem}", path


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, about 0.6 s per GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shipped_manifest() -> Path:
    packaged = Path(__file__).parent / "manifest.toml"
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "models" / "manifest.toml"


def _read_manifest(path: Path) -> dict[str, KnownModel]:
    try:
        entries: dict[str, Any] = tomllib.loads(path.read_text("utf-8")).get("models", {})
        return {name: KnownModel(name=name, **entry) for name, entry in entries.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise ContentError(f"{path}: not a model manifest: {error}") from None


def _in_caches(name: str) -> Path:
    form = re.fullmatch(r"hf:(?P<user>[\w.-]+)/(?P<repo>[\w.-]+?)(?::(?P<quant>[\w.-]+))?", name)
    if not form:
        raise ContentError(f"model {name!r}: write it as hf:user/repo:QUANT")
    quant = form["quant"] or _DEFAULT_QUANT
    caches = _caches()
    for cache in caches:
        files = sorted((cache / f"models--{form['user']}--{form['repo']}").glob("snapshots/*/*.gguf"))
        named = [path for path in files if quant.lower() in path.stem.lower()]
        chosen = named or (files if not form["quant"] else [])
        if chosen:
            return chosen[0]
    looked = ", ".join(map(str, caches)) or "no cache folder exists"
    raise ModelMissing(
        f"model {name!r} is not in the local cache ({looked}); fetch it with another tool, localgrad downloads nothing"
    )


def _caches() -> list[Path]:
    environment = os.environ
    places = [
        environment.get("LLAMA_CACHE"),
        environment.get("HF_HUB_CACHE"),
        f"{environment['HF_HOME']}/hub" if "HF_HOME" in environment else None,
        Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "hub",
    ]
    unique = dict.fromkeys(Path(place).expanduser() for place in places if place)
    return [place for place in unique if place.is_dir()]
