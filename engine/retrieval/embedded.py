"""Vectors kept on disk as they are computed, until the build that asked for them is complete.

Two files that only grow: the chunks' fingerprints, 8 bytes each, and their vectors. A process may die between or within
two writes; so a fingerprint follows its vector, and what does not belong to a whole pair is cut off.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.retrieval.embedder import Vectors
from engine.retrieval.stored import EMBEDDED

_KEY_BYTES = 8


class EmbeddedChunks:
    """What one embedder has made of chunks, by their fingerprints."""

    def __init__(self, folder: Path, embedder_sha256: str, dimension: int) -> None:
        """Go on with the files of this embedder in `folder`, or begin them."""
        self._keys_path = folder / f"{EMBEDDED}{embedder_sha256[:16]}-{dimension}.keys"
        self._vectors_path = self._keys_path.with_suffix(".f32")
        self._dimension = dimension
        keys = self._keys_path.read_bytes() if self._keys_path.is_file() else b""
        size = self._vectors_path.stat().st_size if self._vectors_path.is_file() else 0
        count = min(len(keys) // _KEY_BYTES, size // (4 * dimension))
        self._keys = [keys[place : place + _KEY_BYTES].hex() for place in range(0, count * _KEY_BYTES, _KEY_BYTES)]
        if count:
            for path, whole in ((self._keys_path, count * _KEY_BYTES), (self._vectors_path, count * 4 * dimension)):
                with path.open("r+b") as file:
                    file.truncate(whole)
            # After a power cut a file may hold zeros that were never written.
            sound = np.abs(np.linalg.norm(self._vectors(), axis=1) - 1) < 1e-3
            self._keys = [key if good else "" for key, good in zip(self._keys, sound.tolist(), strict=True)]
        else:
            self._keys_path.unlink(missing_ok=True)
            self._vectors_path.unlink(missing_ok=True)
        self._known = set(self._keys)

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self._known

    def add(self, fingerprints: Sequence[str], vectors: Vectors) -> None:
        """Keep unit vectors (fingerprints, dimension)."""
        with self._vectors_path.open("ab") as file:
            file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
        with self._keys_path.open("ab") as file:
            file.write(bytes.fromhex("".join(fingerprints)))
        self._keys += fingerprints
        self._known.update(fingerprints)

    def read(self) -> Mapping[str, Vectors]:
        """All vectors by fingerprint, read from the file where they are used."""
        return dict(zip(self._keys, self._vectors(), strict=True)) if self._keys else {}

    def _vectors(self) -> Vectors:
        return np.memmap(self._vectors_path, np.float32, "r", shape=(len(self._keys), self._dimension))
