"""Embedders of sentence-transformers, run by PyTorch in this process."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError, ModelMissing
from engine.retrieval.embedder import Report, Vectors

_BATCH = 64
_ROUND = 2048  # texts sorted by length, so that little is padding
# So many texts are embedded on one thread: on 2 cores that others keep busy 300 questions took 4 s on one thread and 15
# on two, which wait for each other; on idle ones a second is lost at most.
_FEW = 1024


class SentenceEmbedder:
    """A sentence-transformers model, as an `Embedder`."""

    def __init__(self, name: str, weights: Path, sha256: str) -> None:
        """Load the model in the folder of its weights.

        Raises:
            ModelMissing: sentence-transformers is not installed.
            ModelError: the folder holds no such model.
        """
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
        self._torch: Any = importlib.import_module("torch")
        self._threads = self._torch.get_num_threads()
        self.name, self.sha256 = name, sha256
        self.dimension = int(self._model.encode(["one"]).shape[1])
        self.longest = int(self._model.max_seq_length) - 2  # its own begin and end come on top

    def embed(self, texts: Sequence[str], report: Report = lambda done, total: None) -> Vectors:
        """Unit vectors (texts, dimension). A text longer than `longest` tokens counts up to there."""
        self._torch.set_num_threads(1 if len(texts) <= _FEW else self._threads)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        done = 0
        for start in range(0, len(texts), _ROUND):
            order = sorted(range(start, min(start + _ROUND, len(texts))), key=lambda number: -len(texts[number]))
            for first in range(0, len(order), _BATCH):
                numbers = order[first : first + _BATCH]
                vectors[numbers] = self._model.encode(
                    [texts[number] for number in numbers],
                    batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True,
                )  # fmt: skip
                done += len(numbers)
                report(done, len(texts))
        return vectors

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The character range of every token of a text, however long it is."""
        encoded = self._model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"] if end > start]

    def close(self) -> None:
        """Let the model go."""
        self._model = None
