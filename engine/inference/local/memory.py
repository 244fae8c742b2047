"""How much memory a model will take, said before it is loaded; and whether that much is free.

Takes a GGUF header and the settings of a context, returns bytes. The formula follows what llama.cpp allocates and was
fitted to its own "buffer size" log lines and to the peak resident size of processes that filled their cache. It is
meant for dense transformers; for mixtures of experts the activations are a little more, for recurrent layers, whose
cache does not grow, the context is less. Does not call llama.cpp.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelError
from engine.inference.local.gguf import GgufHeader, Tensor

# Python, numpy, llama_cpp and this package: 50 MB. What a context allocates beside its buffers: 6 MB.
_PROCESS_BYTES = 56_000_000
_BYTES_PER_TOKEN_OF_VOCABULARY = 370  # its text, its merges and the tables to find them
_BYTES_PER_CELL = 100  # positions and sequences of a cell, whatever it holds
_CELL_STEP = 256  # llama.cpp rounds the cells of a context up to a multiple of this
_SMALLEST_CONTEXT = 1024  # a smaller one is not worth proposing
_F32, _F16 = 4, 2

# ggml's number of each type that the CPU backend copies into another layout when it loads: those tensors are in memory
# twice, as they lie in the file and as they are computed with.
_REPACKED_X86 = frozenset({2, 12, 20, 39})  # Q4_0, Q4_K, IQ4_NL, MXFP4; with AVX2
_REPACKED_ARM = frozenset({2, 8, 12, 13, 14, 20, 39})  # these, Q8_0, Q5_K and Q6_K; with dot products
_REPACKED: Mapping[str, frozenset[int]] = {
    "x86_64": _REPACKED_X86,
    "amd64": _REPACKED_X86,
    "aarch64": _REPACKED_ARM,
    "arm64": _REPACKED_ARM,
}


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
class ContextSettings:
    """What decides the size of a context.

    `outputs` is the most rows of one batch whose logits are asked for, `sequences` llama.cpp's n_seq_max.
    `gpu_layers` are those that really leave this memory: 0 on a build without a GPU, -1 for all of them.
    """

    cells: int
    batch_rows: int
    outputs: int
    sequences: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    gpu_layers: int = 0
    flash_attention: bool = True


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Main memory a model takes at its peak, in bytes."""

    weights: int
    kv: int
    compute: int
    process: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.compute + self.process


def predict(header: GgufHeader, settings: ContextSettings) -> MemoryPlan:
    """The memory that a model and one context will take once its cache is full and its largest batch was computed.

    A mapped file counts as soon as it is read, and loading reads all of it.

    Raises:
        ModelError: a type of the cache has an unknown name.
    """
    for name in (settings.type_k, settings.type_v):
        if name not in KV_TYPES:
            raise ModelError(f"unknown type {name!r} of the KV cache: one of {', '.join(KV_TYPES)}")
    cells = -(-settings.cells // _CELL_STEP) * _CELL_STEP
    here = _layers_here(header, settings.gpu_layers)
    return MemoryPlan(
        weights=sum(_resident(tensor) for tensor in header.tensors if _is_here(tensor, here, header.layers)),
        kv=cells * sum(_cell_size(header, layer, settings) for layer in here),
        compute=_compute_size(header, settings, cells),
        process=_PROCESS_BYTES + _BYTES_PER_TOKEN_OF_VOCABULARY * header.vocabulary + _BYTES_PER_CELL * cells,
    )


def check(header: GgufHeader, settings: ContextSettings, available: int, name: str) -> MemoryPlan:
    """The plan of a model called `name`, if it fits in `available` bytes.

    Raises:
        ModelError: it does not fit; the message has the numbers and the setting that would.
    """
    plan = predict(header, settings)
    if plan.total <= available:
        return plan
    raise ModelError(
        f"model {name} needs {_gigabytes(plan.total)} (weights {_gigabytes(plan.weights, '')}, "
        f"context {_gigabytes(plan.kv, '')}, compute {_gigabytes(plan.compute, '')}) "
        f"and {_gigabytes(available)} are free; {_advice(header, settings, available)}"
    )


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still take without swapping: what the system has free, within its control group's limit.

    Where the system does not say what is free (macOS), all its memory. `root` holds `proc` and `sys`.
    """
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([free, *_group_rooms(root)]))


def _layers_here(header: GgufHeader, gpu_layers: int) -> range:
    """The layers whose weights and cache stay in main memory. llama.cpp moves the output head first, then the last."""
    moved = header.layers + 1 if gpu_layers < 0 else gpu_layers
    return range(min(header.layers, max(0, header.layers + 1 - moved)))


def _is_here(tensor: Tensor, here: range, layers: int) -> bool:
    return tensor.layer is None or tensor.layer in here or tensor.layer >= layers


def _resident(tensor: Tensor) -> int:
    """Bytes of a tensor in memory, with its copy in another layout where the CPU backend makes one."""
    repacked = _REPACKED.get(platform.machine().lower(), frozenset())
    is_matrix = len(tensor.dims) >= 2 and tensor.dims[1] % 8 == 0 and tensor.name != "token_embd.weight"
    return tensor.size * (2 if is_matrix and tensor.kind in repacked else 1)


def _cell_size(header: GgufHeader, layer: int, settings: ContextSettings) -> int:
    """Bytes of one cell in one layer."""
    heads = header.kv_heads[layer]
    keys = KV_TYPES[settings.type_k].size(heads * header.key_length)
    return keys + KV_TYPES[settings.type_v].size(heads * header.value_length)


def _compute_size(header: GgufHeader, settings: ContextSettings, cells: int) -> int:
    """Logits handed out, the largest set of intermediates alive at once, and what the kernels take beside them.

    The three moments that can be largest are attention, the feed-forward part and the output head. llama.cpp reserves
    up to 5% more than the largest, where its allocator leaves gaps.
    """
    rows = min(settings.batch_rows, cells)
    outputs = min(settings.outputs, rows)
    heads, kv_heads = max(header.heads, default=0), max(header.kv_heads, default=0)
    width = max(header.embedding, heads * header.key_length)
    mask = cells * rows * (_F16 if settings.flash_attention else _F32)
    feed_forward = rows * (3 * header.feed_forward + 4 * width) * _F32
    attention = rows * 6 * width * _F32
    if settings.flash_attention:
        lengths = ((settings.type_k, header.key_length), (settings.type_v, header.value_length))
        attention += sum(cells * kv_heads * length * _F16 for name, length in lengths if name == "f32")
        kernels = rows * header.feed_forward * _F16
    else:
        attention += heads * cells * rows * _F32
        kernels = heads * cells * rows * _F16
    head = outputs * (header.vocabulary + 2 * header.embedding) * _F32
    handed_out = max(outputs, settings.sequences) * header.vocabulary * _F32
    return handed_out + max(mask + attention, mask + feed_forward, head) + kernels


def _advice(header: GgufHeader, settings: ContextSettings, available: int) -> str:
    """The setting that would fit: a smaller context, then a smaller cache type, then another model."""
    cells = _largest_context(header, settings, available)
    if cells:
        return f"runtime.context: {cells} would fit"
    small = replace(settings, type_k="q8_0", type_v="q8_0", flash_attention=True)
    if predict(header, small).total <= available:
        return "runtime.kv_type: q8_0 would fit"
    cells = _largest_context(header, small, available)
    if cells:
        return f"runtime.kv_type: q8_0 with runtime.context: {cells} would fit"
    return "no context fits: take a smaller model"


def _largest_context(header: GgufHeader, settings: ContextSettings, available: int) -> int | None:
    """The largest context below the one asked for that fits, a multiple of 256; None where none is worth having."""

    def fits(steps: int) -> bool:
        return predict(header, replace(settings, cells=steps * _CELL_STEP)).total <= available

    low, high = _SMALLEST_CONTEXT // _CELL_STEP, (settings.cells - 1) // _CELL_STEP
    if low > high or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * _CELL_STEP


def _group_rooms(root: Path) -> Iterator[int]:
    """What every control group above this process still allows. Files read before do not count: they can go."""
    try:
        memberships = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":
            base, limit, usage, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        folder = base / group.strip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(base):
                break
            # Inside a container the group's own folder may not be visible; then the mount's root is the group.
            room = _group_room(place / limit, place / usage, place / "memory.stat", cache)
            if room is not None:
                yield room


def _group_room(limit: Path, usage: Path, statistics: Path, cache: str) -> int | None:
    """Limit minus usage of one group; None where it has no limit or is not there."""
    try:
        allowed, used = limit.read_text("ascii").strip(), int(usage.read_text("ascii"))
        cached = dict(line.split() for line in statistics.read_text("ascii").splitlines()).get(cache, "0")
    except OSError:
        return None
    return None if allowed == "max" else int(allowed) - used + int(cached)


def _gigabytes(size: int, unit: str = " GB") -> str:
    return f"{size / 1e9:.{1 if size >= 1e9 or size == 0 else 2}f}{unit}"
