"""What a model will take in memory: headers read safely, predictions worked by hand, and real processes measured."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.inference.local.amx import is_built_in
from engine.inference.local.gguf import GgufHeader, Tensor, read_header
from engine.inference.local.llama import build_identity
from engine.inference.local.memory import available_memory, check, predict
from engine.inference.local.shape import KV_TYPES, Shape
from engine.inference.models import find_model

ROOT = Path(__file__).parents[1]

# ── a small GGUF file made by hand ───────────────────────────────────────────────────────────────

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return struct.pack("<II", U32, value)


def strings(values: Sequence[str]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(text, values))


def numbers(values: Sequence[int]) -> bytes:
    return struct.pack("<IIQ", ARRAY, U32, len(values)) + struct.pack(f"<{len(values)}I", *values)


KEYS: Mapping[str, bytes] = {
    "general.architecture": struct.pack("<I", STRING) + text("llama"),
    "general.name": struct.pack("<I", STRING) + text("small"),
    "general.file_type": number(2),
    "llama.block_count": number(2),
    "llama.context_length": number(128),
    "llama.embedding_length": number(64),
    "llama.feed_forward_length": number(96),
    "llama.attention.head_count": number(4),
    "llama.attention.head_count_kv": number(2),
    "llama.rope.freq_base": struct.pack("<If", F32, 10_000.0),
    "tokenizer.ggml.tokens": strings(["<s>", "a", "bc", ""]),
    "tokenizer.ggml.scores": struct.pack("<IIQ", ARRAY, F32, 4) + struct.pack("<4f", 0, 1, 2, 3),
}
# Q8_0 has 34 bytes for 32 elements.
TENSORS = (("token_embd.weight", (64, 4), 8, 272), ("blk.0.attn_q.weight", (64, 64), 8, 4352), ("norm", (64,), 0, 256))


def gguf(keys: Mapping[str, bytes] = KEYS, tensors: Sequence[tuple[str, tuple[int, ...], int, int]] = TENSORS) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    header += b"".join(text(name) + value for name, value in keys.items())
    offset = 0
    for name, dims, kind, size in tensors:
        header += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += -(-size // 32) * 32
    return header + bytes(-len(header) % 32 + offset)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "small.gguf"
    path.write_bytes(content)
    return path


# ── reading headers ──────────────────────────────────────────────────────────────────────────────


def test_a_header_is_read(tmp_path: Path) -> None:
    assert read_header(written(tmp_path, gguf())) == GgufHeader(
        architecture="llama",
        layers=2,
        embedding=64,
        heads=(4, 4),
        kv_heads=(2, 2),
        key_length=16,
        value_length=16,
        feed_forward=96,
        vocabulary=4,
        trained_context=128,
        file_type=2,
        tensors=tuple(Tensor(name, dims, kind, size) for name, dims, kind, size in TENSORS),
    )


def test_head_counts_may_differ_between_layers_and_lengths_may_be_given(tmp_path: Path) -> None:
    given_lengths = {"llama.attention.key_length": number(32), "llama.attention.value_length": number(8)}
    header = read_header(
        written(tmp_path, gguf({**KEYS, **given_lengths, "llama.attention.head_count_kv": numbers([0, 2])}))
    )
    assert (header.kv_heads, header.key_length, header.value_length) == ((0, 2), 32, 8)


def test_a_file_without_optional_keys_is_read(tmp_path: Path) -> None:
    wanted = ("general.architecture", "llama.block_count", "llama.embedding_length")
    header = read_header(written(tmp_path, gguf({name: KEYS[name] for name in wanted})))
    assert (header.heads, header.kv_heads, header.vocabulary) == ((0, 0), (0, 0), 0)
    assert (header.trained_context, header.file_type) == (None, None)


DAMAGED = {
    b"": "not a GGUF file",
    b"This is no model": "not a GGUF file",
    b"GGUF": "the file ends in a number",
    b"GGUF" + struct.pack("<IQQ", 1, 0, 0): "format version 1",
    b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0): "9223372036854775808 tensors, more than",
    b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40): "metadata keys, more than",
    b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**64 - 1): "bytes in a name, more than",
    gguf()[:-300]: "is not within the file bounds",
    gguf({}): "no general.architecture",
    gguf({**KEYS, "llama.block_count": number(5000)}): "5000 layers, more than",
    gguf({**KEYS, "llama.embedding_length": strings([])}): "not a count",
    gguf({**KEYS, "llama.attention.head_count_kv": numbers([1, 2, 3])}): "3 entries for 2 layers",
    gguf({**KEYS, "x": struct.pack("<II", 77, 0)}): "unknown type 77",
    gguf({**KEYS, "x": struct.pack("<IIQ", ARRAY, ARRAY, 2**60)}): "unknown type 9",
    gguf({**KEYS, "x": struct.pack("<IIQ", ARRAY, STRING, 2**60)}): "entries, more than",
    gguf({**KEYS, "x": struct.pack("<IIQ", ARRAY, U64, 2**63)}): "the file ends in array 'x'",
    gguf({**KEYS, "x": struct.pack("<IIQ", ARRAY, STRING, 1_000_000)}): "the file ends in array 'x'",
    gguf({**KEYS, "general.alignment": number(24)}): "an alignment of 24",
    gguf(tensors=[("x", (31,), 8, 0)]): "rows of 31 elements, not a multiple of 32",
    gguf(tensors=[("x", (2**63, 2**63), 0, 0)]): "is not within the file bounds",
    gguf(tensors=[("x", (1,), 4, 0)]): "tensor 'x' has the unknown type 4",
    gguf(tensors=[("x", (1,) * 5, 0, 0)]): "dimensions of 'x', more than 4",
}


@pytest.mark.parametrize(("content", "complaint"), DAMAGED.items(), ids=range(len(DAMAGED)))
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hostile_file_of_43_bytes_is_refused_at_once(tmp_path: Path) -> None:
    content = b"GGUF" + struct.pack("<IQQQ3sII", 3, 10_000, 10_000, 3, b"key", ARRAY, STRING)
    assert len(content) == 43
    started = time.monotonic()
    with pytest.raises(ModelError, match="damaged GGUF file"):
        read_header(written(tmp_path, content))
    assert time.monotonic() - started < 0.5


def test_a_file_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_header(tmp_path / "absent.gguf")


WHOLE = gguf({**KEYS, "llama.attention.head_count": numbers([4, 4])})


@given(
    cut=st.integers(0, len(WHOLE)),
    flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), max_size=6),
)
def test_no_mutation_of_a_header_does_more_than_raise_a_model_error(
    tmp_path: Path, cut: int, flips: Sequence[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for place, mask in flips:
        content[place] ^= mask
    path = written(tmp_path, bytes(content[: cut if cut % 3 else len(content)]))
    started = time.monotonic()
    with contextlib.suppress(ModelError):
        predict(read_header(path), Shape(cells=512, batch_rows=64, threads=2))
    assert time.monotonic() - started < 1.0


@given(content=st.binary(max_size=200))
def test_noise_after_the_magic_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError):
        read_header(written(tmp_path, b"GGUF\x03\0\0\0" + content))


# ── predictions ──────────────────────────────────────────────────────────────────────────────────

# As large as a model of 8 billion parameters: 32 layers, 8 of 32 heads with keys and values of 128.
LARGE = GgufHeader(
    architecture="llama",
    layers=32,
    embedding=4096,
    heads=(32,) * 32,
    kv_heads=(8,) * 32,
    key_length=128,
    value_length=128,
    feed_forward=14336,
    vocabulary=128256,
    trained_context=131072,
    file_type=7,
    tensors=(
        Tensor("token_embd.weight", (4096, 128256), 30, 1_050_673_152),
        *(Tensor(f"blk.{layer}.ffn_up.weight", (4096, 14336), 30, 117_440_512) for layer in range(32)),
        Tensor("output.weight", (4096, 128256), 30, 1_050_673_152),
    ),
)
SHAPE = Shape(cells=32768, batch_rows=512, threads=2)


def test_the_cache_is_layers_times_heads_times_lengths_times_cells() -> None:
    assert predict(LARGE, SHAPE).kv == 32 * 8 * (128 + 128) * 2 * 32768
    assert predict(LARGE, replace(SHAPE, key_type="q8_0")).kv == 32 * 8 * (128 * 34 // 32 + 128 * 2) * 32768
    assert predict(LARGE, replace(SHAPE, key_type="q4_0", value_type="f32")).kv == 32 * 8 * (72 + 512) * 32768
    assert predict(LARGE, replace(SHAPE, cells=257)).kv == 32 * 8 * 256 * 2 * 512, "rounded up to 256"
    uneven = replace(LARGE, kv_heads=(8, 0) * 16)
    assert predict(uneven, SHAPE).kv == predict(LARGE, SHAPE).kv // 2


def test_compute_is_the_logits_and_the_largest_moment() -> None:
    layer = 32768 * 512 * 2 + 512 * (3 * 14336 + 4 * 4096) * 4
    assert predict(LARGE, SHAPE).compute == 256 * 128256 * 4 + layer + 512 * 14336 * 2
    assert predict(LARGE, SHAPE, outputs=64, sequences=64).compute == 64 * 128256 * 4 + layer + 512 * 14336 * 2
    every_row = predict(LARGE, replace(SHAPE, cells=1024), outputs=512).compute
    assert every_row == 512 * 128256 * 4 + 512 * (128256 + 2 * 4096) * 4 + 512 * 14336 * 2
    without = predict(LARGE, replace(SHAPE, flash_attention=False)).compute
    scores = 32 * 32768 * 512
    assert without == 256 * 128256 * 4 + 32768 * 512 * 4 + 512 * 6 * 4096 * 4 + scores * 4 + scores * 2


def test_weights_are_the_bytes_of_the_tensors_but_not_those_on_the_gpu() -> None:
    head, layer = 1_050_673_152, 117_440_512
    assert predict(LARGE, SHAPE).weights == 2 * head + 32 * layer
    moved = predict(LARGE, SHAPE, 11)
    assert moved.weights == 2 * head + 22 * layer
    assert moved.kv == predict(LARGE, SHAPE).kv * 22 // 32
    everything = predict(LARGE, SHAPE, -1)
    assert (everything.weights, everything.kv) == (2 * head, 0)
    assert predict(LARGE, SHAPE, 99) == everything


def test_an_unknown_type_of_the_cache_is_named_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="unknown type 'q5' of the KV cache: one of f32, f16, bf16, q8_0, q4_0"):
        predict(LARGE, replace(SHAPE, value_type="q5"))


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def refusal(shape: Shape, available: int) -> str:
    with pytest.raises(ModelError) as caught:
        check(LARGE, shape, 0, available, "large")
    return str(caught.value)


def test_what_fits_is_let_through_with_its_plan() -> None:
    plan = predict(LARGE, SHAPE)
    assert check(LARGE, SHAPE, 0, plan.total, "large") == plan
    assert plan.total == plan.weights + plan.kv + plan.compute + plan.process + plan.writing
    refusal(SHAPE, plan.total - 1)


def test_a_refusal_gives_the_numbers_and_the_largest_context_that_fits() -> None:
    line = refusal(SHAPE, 8_000_000_000)
    assert line == (
        "model large needs 12.6 GB (weights 5.9, context 4.3, compute 0.30, writing 2.1) and 8.0 GB are free; "
        "runtime.context: 4352 would fit"
    )
    assert predict(LARGE, replace(SHAPE, cells=4352)).total <= 8_000_000_000
    assert predict(LARGE, replace(SHAPE, cells=4352 + 256)).total > 8_000_000_000


def test_where_no_context_fits_a_smaller_cache_type_is_proposed() -> None:
    small = replace(SHAPE, cells=1024)
    q8_0 = predict(LARGE, replace(small, key_type="q8_0", value_type="q8_0")).total
    assert refusal(small, q8_0).endswith("; runtime.kv_type: q8_0 would fit")
    least = predict(LARGE, replace(SHAPE, cells=1024, key_type="q8_0", value_type="q8_0")).total
    assert refusal(SHAPE, least).endswith("; runtime.kv_type: q8_0 with runtime.context: 1024 would fit")


def test_where_nothing_fits_a_smaller_model_is_proposed() -> None:
    assert refusal(SHAPE, 2_000_000_000).endswith("; no context fits: take a smaller model")


# ── what is free ─────────────────────────────────────────────────────────────────────────────────


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")
    return root


def group(folder: str, limit: str, usage: str, cache: str) -> dict[str, str]:
    """The files of a group of version 2."""
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{usage}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {cache}\n",
    }


def test_what_the_system_has_free_is_available(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, {})) == 8_000_000 * 1024
    unlimited = {"proc/self/cgroup": "0::/user\n", **group("sys/fs/cgroup/user", "max", "5", "0")}
    assert available_memory(machine(tmp_path, unlimited)) == 8_000_000 * 1024


def test_the_tightest_control_group_above_the_process_limits_it(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        **group("sys/fs/cgroup/outer", "4000000", "1500000", "500000"),
        **group("sys/fs/cgroup/outer/inner", "8000000", "100", "0"),
    }
    assert available_memory(machine(tmp_path, files)) == 3_000_000


def test_control_groups_of_version_1_limit_it_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:devices:/x\n4:cpu,memory:/jobs\n0::/\n",
        "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "4000000\n",
        "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": "3000000\n",
        "sys/fs/cgroup/memory/jobs/memory.stat": "inactive_file 1\ntotal_inactive_file 200000\n",
    }
    assert available_memory(machine(tmp_path, files)) == 1_200_000


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", **group("sys/fs/cgroup", "100", "200", "0")}
    assert available_memory(machine(tmp_path, files)) == 0


def test_without_proc_all_memory_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ── real processes ───────────────────────────────────────────────────────────────────────────────

# Loads a model, fills its cache and computes a full batch at the end of it. To fill, one sequence is computed and its
# state copied to others, in seconds instead of minutes.
_FILLING = """
import ctypes, json, resource, sys
import engine.inference.local.backend
import llama_cpp
asked = json.loads(sys.argv[1])
silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
loading = llama_cpp.llama_model_default_params()
loading.check_tensors = True
model = llama_cpp.llama_model_load_from_file(asked["path"].encode(), loading)
making = llama_cpp.llama_context_default_params()
making.n_ctx, making.n_seq_max, making.kv_unified = asked["cells"], asked["sequences"], True
making.n_batch = making.n_ubatch = asked["batch_rows"]
making.n_threads = making.n_threads_batch = 1
making.type_k, making.type_v = asked["key_type"], asked["value_type"]
making.flash_attn_type = int(asked["flash_attention"])
context = llama_cpp.llama_init_from_model(model, making)
memory = llama_cpp.llama_get_memory(context)
batch = llama_cpp.llama_batch_init(asked["batch_rows"], 0, 256)

def decode(sequence, start, rows, outputs):
    batch.n_tokens = rows
    for row in range(rows):
        batch.token[row], batch.pos[row], batch.logits[row] = 1000 + row, start + row, row < outputs
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
    assert llama_cpp.llama_decode(context, batch) == 0

length, rows = asked["cells"] // asked["sequences"], asked["batch_rows"]
for start in range(0, length, rows):
    decode(0, start, min(rows, length - start), 0)
size = llama_cpp.llama_state_seq_get_size(context, 0)
state = (ctypes.c_uint8 * size)()
assert llama_cpp.llama_state_seq_get_data(context, state, size, 0) == size
last = asked["sequences"] - max(1, -(-rows // length))
for sequence in range(1, last):
    assert llama_cpp.llama_state_seq_set_data(context, state, size, sequence) == size
decode(last, 0, min(rows, asked["cells"] - last * length), asked["outputs"])
try:  # ru_maxrss would count what the process had in memory before it became this program
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
except FileNotFoundError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def has_amx() -> bool:
    return is_built_in(build_identity())


def peak_bytes(path: Path, shape: Shape, outputs: int, sequences: int) -> int:
    asked = {"path": str(path), "outputs": outputs, "sequences": sequences, **asdict(shape)}
    asked |= {name: KV_TYPES[asked[name]].ggml_type for name in ("key_type", "value_type")}
    done = subprocess.run(
        [sys.executable, "-c", _FILLING, json.dumps(asked)],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.model
@pytest.mark.parametrize(
    ("shape", "outputs", "sequences"),
    [
        (Shape(2048, 64, 1), 64, 64),
        (Shape(2048, 512, 1), 512, 64),
        (Shape(2048, 512, 1, flash_attention=False), 64, 64),
        (Shape(8192, 64, 1, "q8_0", "q8_0"), 1, 64),
        (Shape(8192, 512, 1), 64, 256),
        (Shape(32768, 512, 1), 256, 256),
        (Shape(32768, 512, 1, "q8_0", "q8_0"), 64, 256),
    ],
    ids=lambda given: f"{given.cells}-{given.batch_rows}-{given.key_type}" if isinstance(given, Shape) else None,
)
def test_the_peak_of_a_real_process_is_within_a_tenth_of_the_prediction(
    shape: Shape, outputs: int, sequences: int
) -> None:
    path = find_model("smollm2-135m", ROOT).path
    plan = predict(read_header(path), shape, outputs=outputs, sequences=sequences, streams=0, amx=has_amx())
    measured = peak_bytes(path, shape, outputs, sequences)
    assert measured == pytest.approx(plan.total, rel=0.1), plan


# Fills both caches of a backend: long prompts that share nothing are scored, others are continued.
_WORKING = """
import json, sys
from pathlib import Path
from engine.flows import ask, together
from engine.inference.local.backend import LlamaBackend
from engine.inference.local.gguf import read_header
from engine.inference.runtime import Runtime
from engine.records import Generate, Plain, Score
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings
path, store = map(Path, sys.argv[1:3])
backend = LlamaBackend(path, "0" * 64, "small", RuntimeSettings(context=2048, tune=False))
words = [f"{n} sheep went over the hill and {n} came back" for n in range(400)]
with Runtime({"task": backend}, Store(store)) as runtime:
    texts = [" ".join(words[n::40])[:700] for n in range(40)]
    shared = " ".join(words)[:1500]
    asked = [Score(Plain(text + shared[:200] + " yes or no?"), (" yes", " no")) for text in texts]
    asked += [Generate(Plain(text), 40) for text in texts]
    asked += [Score(Plain(shared + text[:40]), (" yes", " no")) for text in texts]
    asked += [Score(Plain(f"{shared} {n}"), (" yes", " no")) for n in range(300)]  # as many logits as a batch may want
    answers = runtime.run(together([ask(one) for one in asked]))
    assert not [answer.error for answer in answers if answer.error]
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"peak": peak, "planned": backend.memory.total, "kv": backend.memory.kv}))
"""


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_peak_of_scoring_and_writing_is_within_a_tenth_of_the_prediction(tmp_path: Path) -> None:
    path = find_model("smollm2-135m", ROOT).path
    done = subprocess.run(
        [sys.executable, "-c", _WORKING, str(path), str(tmp_path / "store.db")],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    seen = json.loads(done.stdout)
    assert seen["peak"] <= 1.05 * seen["planned"], seen
    assert seen["peak"] == pytest.approx(seen["planned"], rel=0.1), seen


_COPYING = """
import ctypes, sys
import llama_cpp
settings = llama_cpp.llama_model_quantize_default_params()
settings.allow_requantize, settings.ftype, settings.nthread = True, 2, 1
assert llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(settings)) == 0
"""


@pytest.mark.model
def test_weights_that_are_repacked_on_loading_are_counted_twice(tmp_path: Path) -> None:
    copy = tmp_path / "q4_0.gguf"
    source = find_model("smollm2-135m", ROOT).path
    subprocess.run([sys.executable, "-c", _COPYING, str(source), str(copy)], capture_output=True, check=True)
    shape = Shape(2048, 64, 1)
    plan = predict(read_header(copy), shape, outputs=64, sequences=64, streams=0, amx=has_amx())
    measured = peak_bytes(copy, shape, 64, 64)
    copy.unlink()  # it is large
    assert measured == pytest.approx(plan.total, rel=0.1), plan


@pytest.mark.model
def test_the_header_of_the_embedded_model_is_read_in_milliseconds() -> None:
    path = find_model("smollm2-135m", ROOT).path
    took = []
    for _ in range(3):
        started = time.perf_counter()
        header = read_header(path)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.05
    assert (header.layers, header.kv_heads[0], header.vocabulary, len(header.tensors)) == (30, 3, 49152, 272)
