"""Options that many commands share, handed to them as one record."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import click

from engine.tasks.schema import KVType


@dataclass(frozen=True, slots=True)
class Common:
    """Where the store is, if it was named; whether the result is wanted as JSON; what flags say of `runtime`."""

    store: str | None
    as_json: bool
    runtime: Mapping[str, Any] = field(default_factory=dict)


def common_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add --store and --json; the command receives them as `common`."""

    @click.option("--store", help="The store file; by default .localgrad/store.db beside the task.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(command)
    def wrapped(store: str | None, as_json: bool, **given: Any) -> int:
        return command(common=Common(store, as_json), **given)

    return wrapped


_RUNTIME = (
    click.option("--threads", type=click.IntRange(min=1), help="Threads of llama.cpp."),
    click.option("--context", type=click.IntRange(min=1), help="Cells of the KV cache, in tokens."),
    click.option("--parallel", type=click.IntRange(min=1), help="Sequences, or requests to a server, at a time."),
    click.option("--gpu-layers", type=click.IntRange(min=-1), help="Layers to put on the GPU; -1 for all."),
    click.option("--main-gpu", type=click.IntRange(min=0), help="The GPU to use, where there are several."),
    click.option("--kv-type", type=click.Choice(get_args(KVType)), help="Format of the KV cache."),
    click.option(
        "--deterministic/--no-deterministic",
        default=None,
        help="Whether answers depend on their prompt alone, to the bit, which takes time.  [default: where optimizing]",
    ),
    click.option("--tune/--no-tune", default=None, help="Whether to use what `localgrad tune` found.  [default: tune]"),
)
_RUNTIME_NAMES = ("threads", "context", "parallel", "gpu_layers", "main_gpu", "kv_type", "deterministic", "tune")


def runtime_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add flags for the settings of the task's `runtime` section; they arrive in `common.runtime`."""

    @functools.wraps(command)
    def wrapped(common: Common, **given: Any) -> int:
        flags = {name: value for name in _RUNTIME_NAMES if (value := given.pop(name)) is not None}
        return command(common=Common(common.store, common.as_json, flags), **given)

    for option in reversed(_RUNTIME):
        wrapped = option(wrapped)
    return common_options(wrapped)
