"""Opening an embedder by name: the one place that decides what runs it. Nothing is ever downloaded."""

from importlib.util import find_spec
from pathlib import Path

from engine.errors import ModelMissing
from engine.inference.models import file_sha256, find_model, manifest
from engine.retrieval.embedder import Embedder
from engine.retrieval.sentence import SentenceEmbedder

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def open_embedder(name: str, folder: Path) -> Embedder:
    """Load the embedder that `name` stands for; relative paths start from `folder`.

    A name of the manifest, a folder of sentence-transformers, a GGUF file or `hf:user/repo:QUANT`. Text models embed
    too, though worse than embedders do.

    Raises:
        ModelMissing: the model, or the library that runs it, is not on this machine.
        ModelError: the model cannot be loaded, gives no vectors, or its weights are not those of the manifest.
    """
    weights, sha256 = embedder_weights(name, folder)
    if weights.suffix.lower() == ".gguf":
        from engine.retrieval.gguf import GgufEmbedder  # here, because importing llama_cpp takes 0.3 s

        return GgufEmbedder(name, weights, sha256)
    return SentenceEmbedder(name, weights, sha256)


def embedder_weights(name: str, folder: Path) -> tuple[Path, str]:
    """The file of an embedder's weights and its hash, by which its vectors are known. Loads nothing.

    Raises:
        ModelMissing, ModelError: as `open_embedder`.
    """
    if is_path(name, folder) and not name.lower().endswith(".gguf"):
        weights = _weights((folder / Path(name).expanduser()).resolve())
        return weights, file_sha256(weights)
    found = find_model(name, folder, role="embed")
    return found.path, found.sha256


def check_embedder(name: str, folder: Path) -> None:
    """See that an embedder and the library that runs it are on this machine. Loads neither, which takes seconds.

    Raises:
        ModelMissing, ModelError: as `open_embedder`.
    """
    weights, _ = embedder_weights(name, folder)
    library = "llama_cpp" if weights.suffix.lower() == ".gguf" else "sentence_transformers"
    if find_spec(library) is None:
        raise ModelMissing(f"embedding needs {library}: pip install 'localgrad[retrieval]'")


def is_path(name: str, folder: Path) -> bool:
    """Whether a name stands for a folder or a file; those of the manifest do not, whatever lies in `folder`."""
    if name.startswith("hf:") or name in manifest():
        return False
    return name.lower().endswith(".gguf") or (folder / Path(name).expanduser()).is_dir()


def _weights(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ModelMissing(f"{folder}: holds no {_WEIGHTS[0]}; give a folder of sentence-transformers, or a .gguf file")
