"""The shape of a context: how much it holds, in which types, and the bounds of every context. Nothing runs here."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.tasks.schema import KVType

MAX_SEQUENCES = 256  # llama.cpp takes no more
MAX_STREAMS = 64  # texts written at a time; from 16 to 32 of them a token gets a tenth cheaper
SPLIT_CELLS = 8192  # the most cells of the split cache that texts are written over; longer ones take the unified cache
MAX_OUTPUTS = 256  # rows of a batch whose logits are asked for; 50 MB of them with 49,152 tokens


@dataclass(frozen=True, slots=True)
class KvType:
    """A type of the cache's keys or values: ggml's number of it, and how many bytes a block of elements takes."""

    ggml_type: int
    block_elements: int
    block_bytes: int

    def size(self, elements: int) -> int:
        """Bytes of a row; a row that is no multiple of the block is rounded up, which llama.cpp would refuse."""
        return -(-elements // self.block_elements) * self.block_bytes


KV_TYPES: Mapping[str, KvType] = {
    "f32": KvType(0, 1, 4),
    "f16": KvType(1, 1, 2),
    "bf16": KvType(30, 1, 2),
    "q8_0": KvType(8, 32, 34),
    "q4_0": KvType(2, 32, 18),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a context is laid out: `cells` tokens of cache, at most `batch_rows` rows in a batch.

    `padding` is the least number of rows, and of rows with logits, that a batch is filled up to: kernels for a single
    row, or for a few, may round differently. `tile` is the number of rows from which attention is computed in tiles,
    where that is so much faster that a batch of a quarter of them is filled up too; 0 where it is not.
    """

    cells: int
    batch_rows: int
    threads: int
    key_type: KVType = "f16"
    value_type: KVType = "f16"
    flash_attention: bool = True
    padding: int = 1
    tile: int = 0
