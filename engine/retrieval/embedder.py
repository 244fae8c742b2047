"""Embedders: texts in, unit vectors out, with sentence-transformers in this process. Nothing is ever downloaded."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError, ModelMissing
from engine.inference.models import file_sha256, find_model

Vectors = NDArray[np.float32]
Report = Callable[[int, int], None]

DEFAULT_EMBEDDER = "minilm-l6-v2"
_BATCH = 64
_ROUND = 2048  # texts between two reports; sorted by length within, so that little is padding


class Embedder(Protocol):
    """What an index needs of a model: `sha256` is that of its weights, `dimension` the length of its vectors."""

    name: str
    sha256: str
    dimension: int
    longest: int

    def embed(self, texts: Sequence[str], report: Report = ...) -> Vectors:
        """Unit vectors (texts, dimension)."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token of a text."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model: one of the manifest's names, or a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load it. A relative folder starts from `folder`.

        Raises:
            ModelMissing: the model, or sentence-transformers, is not on this machine.
            ModelError: the folder holds no such model, or its weights are not those of the manifest.
        """
        weights = _weights(name, folder)
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from sentence_transformers import SentenceTransformer  # here, because it brings torch: seconds
        except ModuleNotFoundError as error:
            raise ModelMissing(f"embedding needs {error.name}: pip install 'localgrad[retrieval]'") from None
        importlib.import_module("transformers.utils.logging").disable_progress_bar()
        try:
            self._model: Any = SentenceTransformer(str(weights.parent), device="cpu", local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{weights.parent}: not a sentence-transformers model ({str(error).splitlines()[0]})"
            ) from None
        self.name, self.sha256 = name, file_sha256(weights)
        self.dimension = int(self._model.encode(["one"]).shape[1])
        self.longest = int(self._model.max_seq_length) - 2  # its own begin and end come on top

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        """Unit vectors (texts, dimension). A text longer than `longest` tokens counts up to there."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _ROUND):
            part = list(texts[start : start + _ROUND])
            vectors[start : start + len(part)] = self._model.encode(
                part, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
            )
            report(start + len(part), len(texts))
        return vectors

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token of a text, however long it is."""
        encoded = self._model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"] if end > start]


def weights_sha256(name: str, folder: Path) -> str:
    """The hash of an embedder's weights, by which its vectors are known. Loads nothing.

    Raises:
        ModelMissing, ModelError: as SentenceEmbedder.
    """
    return file_sha256(_weights(name, folder))


def _weights(name: str, folder: Path) -> Path:
    """The weights' file of a model, whose folder holds the rest."""
    given = (folder / Path(name).expanduser()).resolve()
    if not given.is_dir():
        return find_model(name, folder).path
    for found in ("model.safetensors", "pytorch_model.bin"):
        if (given / found).is_file():
            return given / found
    raise ModelMissing(f"{given}: holds no model.safetensors")
