"""The header of a GGUF file: what has to be known about a model before it is loaded.

Reads the metadata and the tensor list of format versions 2 and 3, little-endian, and no weights. Knows nothing of
llama.cpp. Nothing in the file is believed: every length is held against the file's size and a fixed cap before it is
used, so that a hostile file can neither loop nor allocate.
"""

import math
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from engine.errors import ModelError

_MAX_KEYS = 10_000
_MAX_TENSORS = 100_000
_MAX_STRINGS = 2_000_000  # in all arrays together; the largest vocabularies have 0.8 million tokens and merges
_MAX_KEPT = 65_536  # numbers in all short arrays together
_MAX_NAME_BYTES = 65_535
_MAX_HEADER_BYTES = 256 << 20
_MAX_LAYERS = 4096
_MAX_DIMENSIONS = 4
_MAX_NUMBER = 2**40

# ggml type: (elements in a block, bytes of a block).
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
    42: (64, 18),  # Q2_0
}

# Metadata types: the fixed-size ones as struct formats, then the two others.
_SCALARS: Mapping[int, struct.Struct] = {
    kind: struct.Struct(f"<{code}") for kind, code in [*enumerate("BbHhIif?"), (10, "Q"), (11, "q"), (12, "d")]
}
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file. `dims` begins with the length of a row; `kind` is ggml's number of its type."""

    name: str
    dims: tuple[int, ...]
    kind: int
    size: int  # bytes

    @property
    def layer(self) -> int | None:
        """The number of the layer it belongs to; None for embeddings, output head and the rest."""
        found = re.match(r"blk\.(\d{1,6})\.", self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the file says about its model. Lengths are elements; head counts have one entry per layer, 0 for none."""

    architecture: str
    layers: int
    embedding: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    feed_forward: int
    vocabulary: int
    trained_context: int | None
    file_type: int | None
    tensors: tuple[Tensor, ...]


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file, in milliseconds; long arrays, such as the vocabulary, are passed over.

    A file of several parts is described by its own part alone.

    Raises:
        ModelError: the file cannot be read, is no GGUF file, is damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise ModelError(f"{path}: not a GGUF file (it starts with {magic!r}); give the path of a .gguf model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


class _Reader:
    """A place in the file that only moves forward. Whatever is wrong ends in `_damaged`."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._position, self._end = 4, min(len(data), _MAX_HEADER_BYTES)
        self._strings_left, self._kept_left = _MAX_STRINGS, _MAX_KEPT

    def header(self) -> GgufHeader:
        version = self._number(_U32)
        if version not in (2, 3):
            self._damaged(f"format version {version}, and 2 and 3 can be read")
        tensors = self._count(_U64, _MAX_TENSORS, "tensors")
        keys = self._count(_U64, _MAX_KEYS, "metadata keys")
        metadata: dict[str, object] = {}
        for _ in range(keys):
            name = self._text()
            metadata[name] = self._value(name)
        alignment = self._integer(metadata, "general.alignment", 32)
        if alignment == 0 or alignment & (alignment - 1):
            self._damaged(f"an alignment of {alignment}, not a power of 2")
        listed = [self._tensor() for _ in range(tensors)]
        start = -(-self._position // alignment) * alignment
        for tensor, offset in listed:
            if start + offset + tensor.size > len(self._data):
                self._damaged(f"tensor {tensor.name!r} is not within the file bounds; is it complete?")
        return self._described(metadata, tuple(tensor for tensor, _ in listed))

    def _described(self, metadata: Mapping[str, object], tensors: tuple[Tensor, ...]) -> GgufHeader:
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            self._damaged("no general.architecture")

        def integer(key: str, default: int | None) -> int:
            return self._integer(metadata, f"{architecture}.{key}", default)

        layers, embedding = integer("block_count", None), integer("embedding_length", None)
        if layers > _MAX_LAYERS:
            self._damaged(f"{layers} layers, more than {_MAX_LAYERS}")
        heads = self._per_layer(metadata, f"{architecture}.attention.head_count", layers, (0,) * layers)
        kv_heads = self._per_layer(metadata, f"{architecture}.attention.head_count_kv", layers, heads)
        head_length = embedding // max(heads, default=0) if any(heads) else 0
        # Multi-head latent attention keeps one joint vector, which counts as the key, and no values.
        latent = f"{architecture}.attention.key_length_mla" in metadata
        tokens = metadata.get("tokenizer.ggml.tokens")
        return GgufHeader(
            architecture=architecture,
            layers=layers,
            embedding=embedding,
            heads=heads,
            kv_heads=kv_heads,
            key_length=integer("attention.key_length", head_length),
            value_length=0 if latent else integer("attention.value_length", head_length),
            feed_forward=max(self._per_layer(metadata, f"{architecture}.feed_forward_length", layers, (0,)), default=0),
            vocabulary=tokens.length if isinstance(tokens, _Skipped) else integer("vocab_size", 0),
            trained_context=integer("context_length", 0) or None,
            file_type=self._integer(metadata, "general.file_type", -1) if "general.file_type" in metadata else None,
            tensors=tensors,
        )

    def _integer(self, metadata: Mapping[str, object], key: str, default: int | None) -> int:
        value = metadata.get(key, default)
        if value is None:
            self._damaged(f"no {key}")
        if isinstance(value, bool) or not isinstance(value, int) or (value != default and not 0 <= value < _MAX_NUMBER):
            self._damaged(f"{key} is {value!r}, not a count")
        return value

    def _per_layer(
        self, metadata: Mapping[str, object], key: str, layers: int, default: tuple[int, ...]
    ) -> tuple[int, ...]:
        """One count for every layer, from one number for all of them or from an array of them."""
        value = metadata.get(key, default)
        if not isinstance(value, tuple):
            return (self._integer(metadata, key, None),) * layers
        if value is not default and len(value) != layers:
            self._damaged(f"{key} has {len(value)} entries for {layers} layers")
        for count in value:
            self._integer({key: count}, key, None)
        return value

    def _value(self, name: str) -> object:
        """A number, the architecture's name, a short array of integers as a tuple; `_Skipped` for all else."""
        kind = self._number(_U32)
        if kind == _STRING and name == "general.architecture":
            return self._text()
        if kind == _STRING:
            self._skip_strings(1, name)
            return _Skipped(1)
        if kind != _ARRAY:
            return self._scalar(kind, name)
        kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            self._skip_strings(count, name)
        elif kind in _SCALARS:
            if kind in _INTEGERS and count <= min(_MAX_LAYERS, self._kept_left):
                self._kept_left -= count
                return tuple(self._scalar(kind, name) for _ in range(count))
            self._skip(count * _SCALARS[kind].size, f"array {name!r}")
        else:
            self._damaged(f"array {name!r} has elements of the unknown type {kind}")
        return _Skipped(count)

    def _scalar(self, kind: int, name: str) -> object:
        if kind not in _SCALARS:
            self._damaged(f"key {name!r} has the unknown type {kind}")
        return self._unpack(_SCALARS[kind])

    def _tensor(self) -> tuple[Tensor, int]:
        """A tensor and where its bytes begin, counted from the first of all."""
        name = self._text()
        dims = tuple(self._number(_U64) for _ in range(self._count(_U32, _MAX_DIMENSIONS, f"dimensions of {name!r}")))
        kind, offset = self._number(_U32), self._number(_U64)
        if kind not in _BLOCKS:
            self._damaged(f"tensor {name!r} has the unknown type {kind}")
        elements, size = _BLOCKS[kind]
        if dims and dims[0] % elements:
            self._damaged(f"tensor {name!r} has rows of {dims[0]} elements, not a multiple of {elements}")
        return Tensor(name, dims, kind, math.prod(dims) // elements * size), offset

    def _text(self) -> str:
        length = self._count(_U64, _MAX_NAME_BYTES, "bytes in a name")
        start = self._position
        self._skip(length, "a name")
        return self._data[start : self._position].decode("utf-8", "replace")

    def _skip_strings(self, count: int, name: str) -> None:
        """Pass over strings; the loop is bare because a vocabulary has hundreds of thousands."""
        if count > self._strings_left:
            self._damaged(f"array {name!r} has {count} entries, more than {self._strings_left}")
        self._strings_left -= count
        unpack: Callable[[mmap.mmap, int], tuple[int]] = _U64.unpack_from
        data, position, last = self._data, self._position, self._end - 8
        for _ in range(count):
            if position > last:
                self._damaged(f"the file ends in array {name!r}")
            position += 8 + unpack(data, position)[0]
        self._skip(position - self._position, f"array {name!r}")

    def _count(self, form: struct.Struct, cap: int, what: str) -> int:
        count = self._number(form)
        if count > cap:
            self._damaged(f"{count} {what}, more than {cap}")
        return count

    def _number(self, form: struct.Struct) -> int:
        number = self._unpack(form)
        assert isinstance(number, int)  # form is _U32 or _U64
        return number

    def _unpack(self, form: struct.Struct) -> object:
        start = self._position
        self._skip(form.size, "a number")
        value: object = form.unpack_from(self._data, start)[0]
        return value

    def _skip(self, length: int, what: str) -> None:
        if length > self._end - self._position:
            self._damaged(f"the file ends in {what}")
        self._position += length

    def _damaged(self, what: str) -> NoReturn:
        raise ModelError(f"{self._path}: damaged GGUF file: {what}")


@dataclass(frozen=True, slots=True)
class _Skipped:
    """A text or an array that was passed over, and how many elements it has."""

    length: int
