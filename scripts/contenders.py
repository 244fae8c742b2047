#!/usr/bin/env python3
"""The contenders: what can do a workload's work, each measured in a process of its own.

    scripts/contenders.py W1 as_is                            localgrad on the model's file as it is
    scripts/contenders.py W1 tuned                            localgrad on the layout that its tuning picks
    scripts/contenders.py W1 deterministic                    localgrad as it is, with `deterministic: true`
    scripts/contenders.py W1 loop                             one `Llama.create_completion` after another
    scripts/contenders.py W1 server                           8 client threads against `python -m llama_cpp.server`
    scripts/contenders.py W1 limit --file X.gguf --computed 25000 --outputs 1800
                                                              bare llama_decode of so many tokens

Prints one row of JSON; loading and one warming request are outside the measured time. A contender that is not there
prints {"absent": reason}. scripts/bench.py calls this; `--data` and `--quick` are its options.

What each does: `loop` and `server` generate a label where localgrad scores all or finds the best of many (up to the
longest label's tokens or a newline), which is less work; both get the prompts of a stage sorted, so that `Llama` finds
the longest prefix of the one before in its cache. `limit` decodes from an empty cache, in whichever batch shape
`--shape` names or, without it, the fastest of a few; it decodes at most `--cap` tokens and scales the time up. Its
figure leaves out all that work costs beyond rows: long contexts, one token after another, choosing what to compute.

All contenders run under the OpenMP spin count that localgrad sets for itself. Under the default one the plain loop was
20 times slower on 2 busy cores, which would flatter every ratio.
"""

import argparse
import contextlib
import dataclasses
import http.client
import importlib
import importlib.util
import io
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import workloads
from workloads import Workload

from engine.errors import LocalgradError
from engine.flows import Flow, ask, together
from engine.inference.local.backend import LlamaBackend
from engine.inference.models import find_model
from engine.opening import open_runtime
from engine.records import Completion, Generate, ModelRequest, Plain, Score
from engine.tasks.schema import RuntimeSettings

Name = Literal["as_is", "tuned", "deterministic", "loop", "limit", "server"]
OURS = ("as_is", "tuned", "deterministic")
Measured = dict[str, Any]

_CELLS = 4096
_CLIENTS = 8
_SERVER_NEEDS = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
_SERVER_START_S = 60.0
_WARMING = "Question: Where is Rome?\nAnswer:"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How rows are put into batches: at most so many, from so many sequences, with flash attention or not."""

    rows: int = 512
    sequences: int = 1
    flash: bool = True


SHAPES = tuple(Shape(rows, many, flash) for flash in (True, False) for many in (1, 16) for rows in (512, 256))


class Absent(Exception):
    """This contender cannot be had here; the message says why."""


# ── localgrad: all that these scripts ask of the runtime ─────────────────────────────────────────


def measure_localgrad(workload: Workload, model: str, contender: Name, work: Path) -> Measured:
    """Seconds for the workload, and the runtime's own count of it.

    The store is a new file in the folder `work` and is gone afterwards; a layout that tuning made there stays.
    `inside_s` are seconds inside llama.cpp; `outputs` the rows of logits read.
    """
    settings = RuntimeSettings(tune=contender == "tuned", deterministic=contender == "deterministic")
    with _new_store(work) as store, open_runtime(model, store=store, settings=settings) as runtime:
        backend = runtime.backend("task")
        assert isinstance(backend, LlamaBackend)  # the model is a file
        runtime.run(ask(Generate(Plain(_WARMING), 2)))
        before, inside_s, outputs = runtime.usage.copy(), backend.decode_seconds(), backend.computed_outputs()
        start = time.perf_counter()
        completions = runtime.run(_staged(workload))
        seconds = time.perf_counter() - start
        usage = runtime.usage.since(before)
        inside_s, outputs = backend.decode_seconds() - inside_s, backend.computed_outputs() - outputs
        path = backend.model_path
    failed = [completion.error for completion in completions if completion.error]
    if failed:
        sys.exit(f"contenders: {len(failed)} of {len(completions)} requests failed, the first with: {failed[0]}")
    return {
        "seconds": seconds,
        "inside_s": inside_s,
        "prompt_tokens": usage.prompt_tokens,
        "computed_tokens": usage.computed_tokens,
        "generated_tokens": usage.generated_tokens,
        "outputs": outputs,
        "model_path": str(path.resolve()),
    }


@contextlib.contextmanager
def _new_store(work: Path) -> Iterator[Path]:
    work.mkdir(parents=True, exist_ok=True)
    store = work / f"store-{os.getpid()}-{time.monotonic_ns()}.db"
    try:
        yield store
    finally:
        for path in work.glob(f"{store.name}*"):
            path.unlink()


def _staged(workload: Workload) -> Flow[list[Completion]]:
    completions: list[Completion] = []
    for stage in workload.stages:
        completions += yield from together([ask(request) for request in stage])
    return completions


# ── a plain loop ─────────────────────────────────────────────────────────────────────────────────


def measure_loop(workload: Workload, path: Path) -> Measured:
    """Seconds for one completion after another."""
    import llama_cpp

    threads = cores()
    llama = llama_cpp.Llama(str(path), n_ctx=_CELLS, n_threads=threads, n_threads_batch=threads, verbose=False)
    llama.create_completion(llama.tokenize(_WARMING.encode()), max_tokens=2, temperature=0.0)
    longest = _longest_labels(workload, llama)
    stages = [
        sorted((_prompt_tokens(llama, request), *_ending(request, longest)) for request in stage)
        for stage in workload.stages
    ]
    generated = 0
    start = time.perf_counter()
    for stage in stages:
        for tokens, cap, stop in stage:
            done = llama.create_completion(tokens, max_tokens=cap, stop=stop, temperature=0.0, repeat_penalty=1.0)
            assert not isinstance(done, Iterator)  # nothing is streamed
            generated += done["usage"]["completion_tokens"]
    seconds = time.perf_counter() - start
    prompt_tokens = sum(len(tokens) for stage in stages for tokens, _, _ in stage)
    return {"seconds": seconds, "prompt_tokens": prompt_tokens, "generated_tokens": generated}


def _ending(request: ModelRequest, longest: dict[tuple[str, ...], int]) -> tuple[int, list[str]]:
    """How many tokens to write at most, and what ends them."""
    if isinstance(request, Score):
        return longest[request.continuations], ["\n"]
    assert isinstance(request, Generate)  # no workload counts
    return request.max_tokens, list(request.stop)


def _longest_labels(workload: Workload, llama: Any) -> dict[tuple[str, ...], int]:
    """The most tokens that a label has, by its set of labels."""
    sets = {request.continuations for request in workload.requests if isinstance(request, Score)}
    return {labels: max(len(_text_tokens(llama, text)) for text in labels) for labels in sets}


def _prompt_tokens(llama: Any, request: ModelRequest) -> list[int]:
    """A plain prompt's tokens as localgrad reads it: nothing in it is special."""
    assert isinstance(request.prompt, Plain)  # so are all prompts of the workloads
    beginning = [llama.token_bos()] if llama._model.add_bos_token() else []
    return [*beginning, *_text_tokens(llama, request.prompt.text)]


def _text_tokens(llama: Any, text: str) -> list[int]:
    return list(llama.tokenize(text.encode(), add_bos=False, special=False))


def _vocabulary(path: Path) -> Any:
    import llama_cpp

    with contextlib.redirect_stderr(io.StringIO()):  # a warning about the context that comes along, never used
        return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


# ── the limit ────────────────────────────────────────────────────────────────────────────────────


def measure_limit(path: Path, computed: int, outputs: int, shape: Shape | None, cap: int) -> Measured:
    """Seconds that bare llama_decode needs for `computed` rows, `outputs` of them with logits.

    At most `cap` rows are decoded, in whole batches; the time is scaled to all of them.
    """
    wanted = min(1.0, outputs / computed)
    with _weights(path) as model:
        chosen = shape or max(SHAPES, key=lambda tried: _rows_per_s(model, tried, tried.rows, wanted))
        rate = _rows_per_s(model, chosen, min(cap, computed), wanted)
    return {
        "seconds": computed / rate,
        "tokens_per_s": rate,
        "computed_tokens": computed,
        "file": str(path),
        "shape": dataclasses.asdict(chosen),
    }


@contextlib.contextmanager
def _weights(path: Path) -> Iterator[Any]:
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)  # what llama.cpp logs passes through it
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        sys.exit(f"contenders: llama.cpp cannot load {path}")
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def _rows_per_s(model: Any, shape: Shape, rows: int, wanted: float) -> float:
    """Rows a second in whole batches of a shape, `wanted` of them with logits, each batch from an empty cache."""
    import llama_cpp

    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = shape.rows
    parameters.n_seq_max = shape.sequences
    parameters.n_threads = parameters.n_threads_batch = cores()
    parameters.kv_unified = True
    parameters.flash_attn_type = int(shape.flash)
    parameters.no_perf = True
    context = llama_cpp.llama_init_from_model(model, parameters)
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(shape.rows, 0, 1)
    each = shape.rows // shape.sequences
    for row in range(shape.rows):
        batch.token[row], batch.pos[row] = 100 + row, row % each
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, row // each
        # Logits evenly spread: wherever the running count of them reaches the next whole number.
        batch.logits[row] = math.floor((row + 1) * wanted) > math.floor(row * wanted)
    batches = max(1, round(rows / shape.rows))
    try:
        batch.n_tokens = each  # warming, and no more than one sequence of it
        _decode(context, memory, batch)
        batch.n_tokens = shape.rows
        start = time.perf_counter()
        for _ in range(batches):
            _decode(context, memory, batch)
        return batches * shape.rows / (time.perf_counter() - start)
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)


def _decode(context: Any, memory: Any, batch: Any) -> None:
    import llama_cpp

    llama_cpp.llama_memory_clear(memory, False)
    status = llama_cpp.llama_decode(context, batch)
    if status != 0:
        sys.exit(f"contenders: llama_decode failed with status {status}")
    llama_cpp.llama_synchronize(context)


# ── a server ─────────────────────────────────────────────────────────────────────────────────────


def measure_server(workload: Workload, path: Path) -> Measured:
    """Seconds for 8 clients that send a stage's requests to llama-cpp-python's own server.

    Raises:
        Absent: the server's extras are not installed, or it does not start.
    """
    lacking = [name for name in _SERVER_NEEDS if importlib.util.find_spec(name) is None]
    if lacking:
        raise Absent(f"llama-cpp-python's server needs {', '.join(lacking)}")
    longest = _longest_labels(workload, _vocabulary(path))
    stages = [sorted((_text(request), *_ending(request, longest)) for request in stage) for stage in workload.stages]
    with _server(path) as port, ThreadPoolExecutor(_CLIENTS) as clients:
        _complete(port, (_WARMING, 2, []))
        start = time.perf_counter()
        generated = sum(sum(clients.map(lambda asked: _complete(port, asked), stage)) for stage in stages)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "generated_tokens": generated}


def _text(request: ModelRequest) -> str:
    assert isinstance(request.prompt, Plain)  # so are all prompts of the workloads
    return request.prompt.text


@contextlib.contextmanager
def _server(path: Path) -> Iterator[int]:
    """A server on a free port of the loopback interface, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", str(_CELLS)]
    command += ["--n_threads", str(cores()), "--n_threads_batch", str(cores())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_server(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _await_server(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _SERVER_START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise Absent("llama-cpp-python's server did not start")


def _complete(port: int, asked: tuple[str, int, list[str]]) -> int:
    """One completion over a connection of its own; how many tokens were written."""
    prompt, cap, stop = asked
    body = {"prompt": prompt, "max_tokens": cap, "stop": stop, "temperature": 0.0, "repeat_penalty": 1.0}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        sys.exit(f"contenders: the server answered {response.status}: {answer[:200].decode('utf-8', 'replace')}")
    return int(json.loads(answer)["usage"]["completion_tokens"])


def cores() -> int:
    """Cores this process may use; every contender gets as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ── one measurement ──────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one contender on one workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=list(workloads.BUILDERS))
    parser.add_argument("contender", choices=get_args(Name))
    parser.add_argument("--data", type=Path, default=workloads.DATA)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--work", type=Path, default=Path(".localgrad/bench"), help="localgrad: folder for its store")
    parser.add_argument("--file", type=Path, help="limit: the model file, by default the model's own")
    parser.add_argument("--computed", type=int, default=4096, help="limit: rows to compute")
    parser.add_argument("--outputs", type=int, default=512, help="limit: rows whose logits are wanted")
    parser.add_argument("--shape", type=json.loads, help='limit: {"rows": 512, "sequences": 1, "flash": true}')
    parser.add_argument("--cap", type=int, default=8192, help="limit: rows to decode at most")
    options = parser.parse_args(arguments)
    importlib.import_module("engine.inference.local.llama")  # sets the spin count before llama_cpp is loaded
    try:
        print(json.dumps(_measure(options)))
    except Absent as absent:
        print(json.dumps({"absent": str(absent)}))
    except LocalgradError as error:
        sys.exit(f"contenders: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


def _measure(options: argparse.Namespace) -> Measured:
    contender: Name = options.contender
    path = options.file or find_model(options.model, Path()).path
    if contender == "limit":
        shape = Shape(**options.shape) if options.shape else None
        return measure_limit(path, options.computed, options.outputs, shape, options.cap)
    sizes = workloads.QUICK if options.quick else workloads.FULL
    workload = workloads.build(options.workload, options.data, sizes)
    if contender == "loop":
        return measure_loop(workload, path)
    if contender == "server":
        return measure_server(workload, path)
    return measure_localgrad(workload, options.model, contender, options.work)


if __name__ == "__main__":
    sys.exit(main())
