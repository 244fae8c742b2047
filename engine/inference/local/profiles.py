"""What was learned about a model on this machine, kept in the user's cache folder and read by every later run.

One JSON file for each model file, named by its hash; what it says holds for one machine and one build of llama.cpp, and
is ignored on another. All of it can be deleted at any time and is found out again.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.tasks.schema import KVType

T = TypeVar("T", "Tuning", "Verdict")

AS_IS = "as is"
_TUNINGS = {False: "tuning", True: "deterministic tuning"}


@dataclass(frozen=True, slots=True)
class Tuning:
    """The fastest way found to run a model: a layout of its weights, and the shape of its context.

    `layout` is `as is` or the name of a format, whose file lies in the cache folder. `speedup` is against the file as
    it is, on the shapes the optimizer uses; `divergence` the mean Kullback-Leibler divergence from it, in nats.
    """

    layout: str
    threads: int
    batch_rows: int
    key_type: KVType
    value_type: KVType
    flash_attention: bool
    speedup: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test for determinism found.

    Whether all bits agreed, with which padding of small batches, and the largest difference of two logits.
    """

    deterministic: bool
    padding: int
    difference: float


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/localgrad`, or `~/.cache/localgrad`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "localgrad"


def machine_key(build: str) -> str:
    """A short hash of processor, number of cores and build of llama.cpp."""
    facts = (platform.machine(), _processor(), str(os.cpu_count()), build)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


class Profile:
    """What is known about one model file on one machine."""

    def __init__(self, sha256: str, machine: str) -> None:
        self.path = cache_folder() / "profiles" / f"{sha256[:24]}.json"
        self._machine = machine

    def verdict(self, shape: str) -> Verdict | None:
        """The verdict on a shape, named by its types and layout; None where it was never examined."""
        return _record(Verdict, self._read().get(f"deterministic {shape}"))

    def keep_verdict(self, shape: str, verdict: Verdict) -> None:
        """Remember a verdict."""
        self._keep(f"deterministic {shape}", asdict(verdict))

    def tuning(self, deterministic: bool = False) -> Tuning | None:
        """What `localgrad tune` found for this policy, else for the other; None where it never ran."""
        known = self._read()
        return _record(Tuning, known.get(_TUNINGS[deterministic])) or _record(
            Tuning, known.get(_TUNINGS[not deterministic])
        )

    def keep_tuning(self, tuning: Tuning, deterministic: bool = False) -> None:
        """Remember a tuning."""
        self._keep(_TUNINGS[deterministic], asdict(tuning))

    def forget_tuning(self) -> None:
        """Remember none."""
        for name in _TUNINGS.values():
            self._keep(name, {})

    def layouts(self) -> set[str]:
        """The layouts that some tuning chose."""
        found = (self.tuning(deterministic) for deterministic in _TUNINGS)
        return {tuning.layout for tuning in found if tuning}

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):  # absent, cut off or foreign: found out again
            return {}
        entry = known.get(self._machine, {}) if isinstance(known, dict) else {}
        return entry if isinstance(entry, dict) else {}

    def _keep(self, name: str, value: Mapping[str, Any]) -> None:
        """Write the file anew beside the old one and exchange them. A folder that cannot be written is no error."""
        entry = {**self._read(), name: value}
        partial = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({self._machine: entry}, indent=1), "utf-8")
            partial.replace(self.path)
        except OSError:
            return


def _record(kind: type[T], value: Any) -> T | None:
    """A record from its mapping; None where the mapping is not exactly one of this version."""
    if not isinstance(value, dict) or value.keys() != set(kind.__dataclass_fields__):
        return None
    return kind(**value)


def _processor() -> str:
    """The processor's name, as the system writes it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
