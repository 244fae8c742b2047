"""How a model is run here: from settings, from what `tune` found and from what the model was seen to do, to one record.

Two numerics policies. For throughput, last bits of an answer vary with what is computed at the same time. With
determinism they depend on its prompt alone, which takes a model that passes the test of `determinism.py`, and time.
"""

import os
import platform
from dataclasses import dataclass, replace

from engine.errors import ModelError
from engine.inference.local import amx
from engine.inference.local.determinism import deterministic_shape, examine
from engine.inference.local.gguf import GgufHeader
from engine.inference.local.llama import LlamaModel, build_identity, offloads
from engine.inference.local.memory import MemoryPlan, available_memory, check
from engine.inference.local.profiles import Profile, Tuning, Verdict
from engine.inference.local.runner import Runner
from engine.inference.local.shape import Shape
from engine.tasks.schema import KVType, RuntimeSettings

_BATCH_ROWS = 512
_CONTEXT = 8192
_PARALLEL = 240
_TILE = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """The shape of the context, that of texts, whether answers depend on their prompt alone, how many sequences run."""

    shape: Shape
    writing: Shape
    deterministic: bool
    parallel: int

    @property
    def identity(self) -> str:
        """What of it changes an answer. Threads and batches change last bits at most, and with determinism nothing."""
        types = f"{self.shape.key_type}/{self.shape.value_type}"
        flash = "" if self.shape.flash_attention else " no flash attention"
        if self.deterministic:
            return f"deterministic {types} {self.shape.padding}{flash}"
        return f"throughput {types}, writing {self.writing.key_type}/{self.writing.value_type}{flash}"

    def open(self, model: LlamaModel) -> Runner:
        """The model at work in this shape.

        Raises:
            ModelError: there is not enough memory.
        """
        return Runner(model, self.shape, self.writing, self.parallel, ordered=self.deterministic)


def planned_shape(header: GgufHeader, settings: RuntimeSettings, tuning: Tuning | None) -> Shape:
    """The shape to begin with: settings first, then what `tune` found, then the defaults."""
    trained = header.trained_context or _CONTEXT
    cells = min(_CONTEXT, trained) if settings.context == "auto" else settings.context
    threads, rows = available_cores(), _BATCH_ROWS
    key_type: KVType = "f16"
    value_type: KVType = "f16"
    flash = True
    if tuning:
        threads, rows, flash = min(tuning.threads, threads), tuning.batch_rows, tuning.flash_attention
        key_type, value_type = tuning.key_type, tuning.value_type
    if settings.kv_type != "auto":
        key_type = value_type = settings.kv_type
    if settings.threads != "auto":
        threads = settings.threads
    return Shape(cells, min(rows, cells), threads, key_type, value_type, flash)


def check_memory(header: GgufHeader, shape: Shape, settings: RuntimeSettings, name: str) -> MemoryPlan:
    """The memory the model will take.

    Raises:
        ModelError: that much is not free.
    """
    layers = settings.gpu_layers if offloads() else 0
    return check(header, shape, layers, available_memory(), name, amx.is_built_in(build_identity()))


def decide(model: LlamaModel, shape: Shape, settings: RuntimeSettings, profile: Profile, name: str) -> Policy:
    """The policy for a loaded model.

    Raises:
        ModelError: `deterministic` is asked for and the model does not pass the test.
    """
    if settings.deterministic in (False, "auto"):
        return throughput_policy(shape, settings)
    verdict = known_verdict(model, shape, settings, profile)
    if verdict.deterministic:
        fixed = deterministic_shape(shape, verdict.padding)
        return Policy(fixed, fixed, True, _parallel(settings))
    if settings.deterministic is True:
        raise ModelError(
            f"{name}: its answers depend on what is computed beside them (logits differ by up to "
            f"{verdict.difference:.3g}); set runtime.deterministic to false"
        )
    return throughput_policy(shape, settings)


def throughput_policy(shape: Shape, settings: RuntimeSettings) -> Policy:
    """The policy without determinism.

    Attention of fewer than 64 rows sums values in the cache's own type, and x86 has no fast sums of F16: on an Intel
    Xeon, at 770 tokens of context, 24 rows took 230 ms, 60 rows 535 and 252 rows 349. So batches are filled up, and
    texts, of which a row is computed at a time, take values in BF16, which are summed in F32: 24 rows in 75 ms. A GPU
    may not take such a mixture.
    """
    slow = shape.flash_attention and (shape.key_type, shape.value_type) == ("f16", "f16")
    if not slow or settings.gpu_layers or platform.machine().lower() not in ("x86_64", "amd64"):
        return Policy(shape, shape, False, _parallel(settings))
    return Policy(replace(shape, tile=_TILE), replace(shape, value_type="bf16"), False, _parallel(settings))


def known_verdict(
    model: LlamaModel, shape: Shape, settings: RuntimeSettings, profile: Profile, anew: bool = False
) -> Verdict:
    """Whether the model is deterministic in its deterministic shape: from the profile, or by the test."""
    types = deterministic_shape(shape, padding=1)
    examined = (
        f"{model.path.stem} {types.key_type}/{types.value_type} threads {shape.threads} gpu {settings.gpu_layers} split"
    )
    verdict = None if anew else profile.verdict(examined)
    if verdict is None:
        verdict = examine(model, shape)
        profile.keep_verdict(examined, verdict)
    return verdict


def _parallel(settings: RuntimeSettings) -> int:
    return _PARALLEL if settings.parallel == "auto" else settings.parallel


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
