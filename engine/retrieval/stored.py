"""A built index on disk, `indexes/<name>/<fingerprint>/`: complete once it has that name, which it gets last."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ContentError
from engine.retrieval.chunks import Chunk
from engine.retrieval.embedder import Vectors
from engine.retrieval.recipe import Recipe
from engine.store.keys import canonical

MANIFEST = "manifest.json"
CHUNKS, VECTORS, GRAPH, WORDS = "chunks.jsonl", "vectors.npy", "vectors.faiss", "words"
EMBEDDED = "embedded-"
_BUILD = re.compile(r"[0-9a-f]{16}(\..+)?")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a built index holds, and the hash of every file of it."""

    fingerprint: str
    recipe: dict[str, Any]
    embedder: str
    embedder_sha256: str
    dimension: int
    documents: int
    chunks: int
    kind: str
    embedded: int
    seconds: float
    files: dict[str, str]
    version: int = _VERSION


def fingerprint(recipe: Recipe, embedder_sha256: str, chunks: Sequence[Chunk]) -> str:
    """The name of what building gives: same recipe, weights and texts, same name."""
    content = [asdict(recipe), embedder_sha256, [[chunk.id, chunk.fingerprint] for chunk in chunks], _VERSION]
    return hashlib.blake2b(canonical(content).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def write_chunks(chunks: Sequence[Chunk], path: Path) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(chunk)) + "\n" for chunk in chunks)


def read_chunks(path: Path) -> list[Chunk]:
    """The chunks as they were written."""
    with path.open(encoding="utf-8") as file:
        return [Chunk(**json.loads(line)) for line in file]


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Say in its folder what was built."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), "utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none, or one of another version."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return manifest if manifest.version == _VERSION else None


def built(folder: Path) -> list[tuple[Path, Manifest]]:
    """The complete indexes below a folder, the one built last first."""
    found = [(path, manifest) for path in folder.glob("*/") if (manifest := read_manifest(path))]
    found = [(path, manifest) for path, manifest in found if path.name == manifest.fingerprint]
    return sorted(found, key=lambda each: -(each[0] / MANIFEST).stat().st_mtime_ns)


def delete_all_but(folder: Path, fingerprint: str) -> None:
    """Delete older builds, whole or not, and what was kept for the one that is complete now."""
    for path in folder.iterdir():
        if path.is_dir() and _BUILD.fullmatch(path.name) and path.name != fingerprint:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(EMBEDDED):
            path.unlink(missing_ok=True)


def new_vectors(folder: Path, count: int, dimension: int) -> np.memmap[Any, np.dtype[np.float32]]:
    """The file of vectors (count, dimension), to be filled."""
    return np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (count, dimension))


def open_vectors(folder: Path) -> Vectors:
    """The vectors (count, dimension), read from the file where they are used."""
    vectors: Vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    return vectors


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file but the manifest, by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def check_files(folder: Path, manifest: Manifest, but: str = "") -> None:
    """See that the files are those that were written, `but` for one that will not be read.

    Raises:
        ContentError: one is missing or has changed.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if name == but:
            continue
        if not path.is_file():
            raise ContentError(f"{path}: missing: build the index again")
        if _sha256(path) != expected:
            raise ContentError(f"{path}: has changed since it was built: build the index again")


def is_whole(folder: Path, manifest: Manifest) -> bool:
    """Whether the files are those that were written."""
    try:
        check_files(folder, manifest)
    except ContentError:
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
