"""How much memory a model will take, said before it is loaded; and whether that much is free.

Takes a GGUF header and the shape of a context, returns bytes. The formula follows what llama.cpp allocates and was
fitted to its own "buffer size" log lines and to the peak resident size of processes that filled their cache. It is
meant for dense transformers; for mixtures of experts the activations are a little more, for recurrent layers, whose
cache does not grow, the context is less. Does not call llama.cpp.
"""

import functools
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelError
from engine.inference.local.gguf import GgufHeader, Tensor
from engine.inference.local.shape import KV_TYPES, MAX_OUTPUTS, MAX_SEQUENCES, MAX_STREAMS, SPLIT_CELLS, Shape

# Python, numpy, llama_cpp and this package: 50 MB. What a context allocates beside its buffers: 6 MB.
_PROCESS_BYTES = 56_000_000
_BYTES_PER_TOKEN_OF_VOCABULARY = 370  # its text, its merges and the tables to find them
_BYTES_PER_CELL = 100  # positions and sequences of a cell, whatever it holds
_CELL_STEP = 256  # llama.cpp rounds the cells of a context up to a multiple of this
_SMALLEST_CONTEXT = 1024  # a smaller one is not worth proposing
_KEPT = 0.75  # beginnings kept outside, as a share of a cache: by the scheduler a half, by the writer a quarter
_F32, _F16 = 4, 2

# ggml's number of each type that the CPU backend copies into another layout when it loads: those tensors are in memory
# twice, as they lie in the file and as they are computed with.
_REPACKED_X86 = frozenset({2, 12, 20, 39})  # Q4_0, Q4_K, IQ4_NL, MXFP4; with AVX2
_REPACKED_ARM = frozenset({2, 8, 12, 13, 14, 20, 39})  # these, Q8_0, Q5_K and Q6_K; with dot products
_REPACKED_AMX = frozenset({2, 3, 8, 12, 13, 14, 23})  # Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_XS
_REPACKED: Mapping[str, frozenset[int]] = {
    "x86_64": _REPACKED_X86,
    "amd64": _REPACKED_X86,
    "aarch64": _REPACKED_ARM,
    "arm64": _REPACKED_ARM,
}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Main memory a model takes at its peak, in bytes.

    `kv` and `compute` are those of one context, `writing` what comes on top once texts are written: a split cache, its
    buffers, and the computed beginnings that are kept outside of both.
    """

    weights: int
    kv: int
    compute: int
    process: int
    writing: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.compute + self.process + self.writing


Planned = Callable[[Shape], MemoryPlan]


def predict(
    header: GgufHeader,
    shape: Shape,
    gpu_layers: int = 0,
    *,
    outputs: int = MAX_OUTPUTS,
    sequences: int = MAX_SEQUENCES,
    streams: int = MAX_STREAMS,
    amx: bool = False,
) -> MemoryPlan:
    """The memory that a model and its contexts will take once caches are full and the largest batch was computed.

    A mapped file counts as soon as it is read, and loading reads all of it. `gpu_layers` are those that really leave
    this memory: 0 on a build without a GPU, -1 for all of them. `outputs` is the most rows of one batch whose logits
    are asked for, `sequences` llama.cpp's n_seq_max; `streams` are those that texts are written on, 0 for no writing.
    `amx` says that the build computes with Intel's AMX, which has a layout of its own.

    Raises:
        ModelError: a type of the cache has an unknown name.
    """
    for name in (shape.key_type, shape.value_type):
        if name not in KV_TYPES:
            raise ModelError(f"unknown type {name!r} of the KV cache: one of {', '.join(KV_TYPES)}")
    cells = -(-shape.cells // _CELL_STEP) * _CELL_STEP
    here = _layers_here(header, gpu_layers)
    cell = sum(_cell_size(header, layer, shape) for layer in here)
    split, writing = min(cells, SPLIT_CELLS), 0
    if streams:
        writing = round((1 + _KEPT) * split * cell) + _compute_size(header, shape, split, streams, streams)
    return MemoryPlan(
        weights=sum(
            _resident(header, tensor, amx) for tensor in header.tensors if _is_here(tensor, here, header.layers)
        ),
        kv=cells * cell,
        compute=_compute_size(header, shape, cells, outputs, sequences),
        process=_PROCESS_BYTES + _BYTES_PER_TOKEN_OF_VOCABULARY * header.vocabulary + _BYTES_PER_CELL * cells,
        writing=writing,
    )


def check(
    header: GgufHeader, shape: Shape, gpu_layers: int, available: int, name: str, amx: bool = False
) -> MemoryPlan:
    """The plan of a model called `name`, if it fits in `available` bytes.

    Raises:
        ModelError: it does not fit; the message has the numbers and the setting that would.
    """
    planned = functools.partial(predict, header, gpu_layers=gpu_layers, amx=amx)
    plan = planned(shape)
    if plan.total <= available:
        return plan
    raise ModelError(
        f"model {name} needs {_gigabytes(plan.total)} (weights {_gigabytes(plan.weights, '')}, "
        f"context {_gigabytes(plan.kv, '')}, compute {_gigabytes(plan.compute, '')}, "
        f"writing {_gigabytes(plan.writing, '')}) "
        f"and {_gigabytes(available)} are free; {_advice(planned, shape, available)}"
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


def _resident(header: GgufHeader, tensor: Tensor, amx: bool) -> int:
    """Bytes of a tensor in memory, with its copy in another layout where the CPU backend makes one.

    With AMX the embedding has one too where it is the output head as well; other layouts leave it alone.
    """
    repacked = _REPACKED.get(platform.machine().lower(), frozenset()) | (_REPACKED_AMX if amx else frozenset())
    is_matrix = len(tensor.dims) >= 2 and tensor.dims[1] % 8 == 0
    if tensor.name == "token_embd.weight":
        is_matrix = amx and all(other.name != "output.weight" for other in header.tensors)
    return tensor.size * (2 if is_matrix and tensor.kind in repacked else 1)


def _cell_size(header: GgufHeader, layer: int, shape: Shape) -> int:
    """Bytes of one cell in one layer."""
    heads = header.kv_heads[layer]
    keys = KV_TYPES[shape.key_type].size(heads * header.key_length)
    return keys + KV_TYPES[shape.value_type].size(heads * header.value_length)


def _compute_size(header: GgufHeader, shape: Shape, cells: int, outputs: int, sequences: int) -> int:
    """Logits handed out, the largest set of intermediates alive at once, and what the kernels take beside them.

    The three moments that can be largest are attention, the feed-forward part and the output head. llama.cpp reserves
    up to 5% more than the largest, where its allocator leaves gaps.
    """
    rows = min(shape.batch_rows, cells)
    outputs = min(outputs, rows)
    heads, kv_heads = max(header.heads, default=0), max(header.kv_heads, default=0)
    width = max(header.embedding, heads * header.key_length)
    mask = cells * rows * (_F16 if shape.flash_attention else _F32)
    feed_forward = rows * (3 * header.feed_forward + 4 * width) * _F32
    attention = rows * 6 * width * _F32
    if shape.flash_attention:
        lengths = ((shape.key_type, header.key_length), (shape.value_type, header.value_length))
        attention += sum(cells * kv_heads * length * _F16 for name, length in lengths if name == "f32")
        kernels = rows * header.feed_forward * _F16
    else:
        attention += heads * cells * rows * _F32
        kernels = heads * cells * rows * _F16
    head = outputs * (header.vocabulary + 2 * header.embedding) * _F32
    handed_out = max(outputs, sequences) * header.vocabulary * _F32
    return handed_out + max(mask + attention, mask + feed_forward, head) + kernels


def _advice(planned: Planned, shape: Shape, available: int) -> str:
    """The setting that would fit: a smaller context, then a smaller cache type, then another model."""
    cells = _largest_context(planned, shape, available)
    if cells:
        return f"runtime.context: {cells} would fit"
    small = replace(shape, key_type="q8_0", value_type="q8_0", flash_attention=True)
    if planned(small).total <= available:
        return "runtime.kv_type: q8_0 would fit"
    cells = _largest_context(planned, small, available)
    if cells:
        return f"runtime.kv_type: q8_0 with runtime.context: {cells} would fit"
    return "no context fits: take a smaller model"


def _largest_context(planned: Planned, shape: Shape, available: int) -> int | None:
    """The largest context below the one asked for that fits, a multiple of 256; None where none is worth having."""

    def fits(steps: int) -> bool:
        return planned(replace(shape, cells=steps * _CELL_STEP)).total <= available

    low, high = _SMALLEST_CONTEXT // _CELL_STEP, (shape.cells - 1) // _CELL_STEP
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
