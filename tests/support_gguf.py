"""A GGUF file of a BERT encoder, written from the folder of a sentence-transformers model."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _CONTROL = 1, 3
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}


def write_bert(folder: Path, target: Path, pooling: int | None) -> None:
    """Write the model in `folder` with 32-bit weights; `pooling` is llama.cpp's number, None to say nothing of it."""
    from safetensors.numpy import load_file

    settings = json.loads((folder / "config.json").read_text("utf-8"))
    words = (folder / "vocab.txt").read_text("utf-8").split("\n")[: settings["vocab_size"]]
    metadata = {
        "general.architecture": _string("bert"),
        "bert.block_count": _u32(settings["num_hidden_layers"]),
        "bert.context_length": _u32(settings["max_position_embeddings"]),
        "bert.embedding_length": _u32(settings["hidden_size"]),
        "bert.feed_forward_length": _u32(settings["intermediate_size"]),
        "bert.attention.head_count": _u32(settings["num_attention_heads"]),
        "bert.attention.layer_norm_epsilon": struct.pack("<If", _F32, settings["layer_norm_eps"]),
        "bert.attention.causal": struct.pack("<I?", _BOOL, False),
        "tokenizer.ggml.model": _string("bert"),
        "tokenizer.ggml.token_type_count": _u32(settings["type_vocab_size"]),
        "tokenizer.ggml.tokens": struct.pack("<IIQ", _ARRAY, _STRING, len(words))
        + b"".join(map(_text, map(_piece, words))),
        "tokenizer.ggml.token_type": struct.pack("<IIQ", _ARRAY, _I32, len(words))
        + struct.pack(f"<{len(words)}i", *(_CONTROL if word in _SPECIAL else _NORMAL for word in words)),
    }
    if pooling is not None:
        metadata["bert.pooling_type"] = _u32(pooling)
    weights = {_named(name): array for name, array in load_file(folder / "model.safetensors").items()}
    _write(target, metadata, {name: array for name, array in weights.items() if name})


def _named(name: str) -> str:
    """GGUF's name of a weight; empty for those it has not."""
    stem, kind = name.rsplit(".", 1)
    if stem in _EMBEDDINGS:
        return f"{_EMBEDDINGS[stem]}.{kind}"
    if stem.startswith("encoder.layer."):
        _, _, number, part = stem.split(".", 3)
        return f"blk.{number}.{_LAYER[part]}.{kind}"
    return ""


def _piece(word: str) -> str:
    """A word of the vocabulary as llama.cpp writes it: what begins a word is marked, not what goes on with it."""
    return word if word in _SPECIAL else word[2:] if word.startswith("##") else f"▁{word}"


def _write(target: Path, metadata: Mapping[str, bytes], weights: Mapping[str, NDArray[np.float32]]) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(metadata))
    header += b"".join(_text(name) + value for name, value in metadata.items())
    offset = 0
    for name, array in weights.items():
        dims: Sequence[int] = array.shape[::-1]
        header += _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, offset)
        offset += -(-array.nbytes // 32) * 32
    with target.open("wb") as file:
        file.write(header + bytes(-len(header) % 32))
        for array in weights.values():
            raw = np.ascontiguousarray(array, dtype=np.float32).tobytes()
            file.write(raw + bytes(-len(raw) % 32))


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _string(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(value)


def _u32(value: int) -> bytes:
    return struct.pack("<II", _U32, value)
