"""Contests: which of several ways to run a model is fastest, found by letting them take turns within a time limit.

Takes contenders and a function that measures one of them; knows nothing of models or files.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.inference.local.policy import available_cores
from engine.inference.local.profiles import AS_IS
from engine.inference.local.shape import Shape
from engine.inference.local.trial import Quality, Speeds
from engine.tasks.schema import RuntimeSettings

# What is less than this much faster is taken for equal: repetitions differ by a few percent.
WORTHWHILE = 1.05
_HOPELESS = 0.75
_REPETITIONS = 3
_BATCH_ROWS = (128, 256, 512, 1024)

Fate = Literal["kept", "slower", "dropped: diverges", "not possible", "no time"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A layout, and the shape of the context that it runs in."""

    layout: str
    shape: Shape

    def __str__(self) -> str:
        shape = self.shape
        types = "" if shape.key_type == shape.value_type == "f16" else f", {shape.key_type}/{shape.value_type} cache"
        flash = "" if shape.flash_attention else ", no flash attention"
        return f"{self.layout}, {shape.threads} threads, batches of {shape.batch_rows}{types}{flash}"


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """What is known about a layout; None where it was not measured. `memory_bytes` is predicted.

    `fate` says what became of it, `reason` why where the fate does not.
    """

    layout: str
    fate: Fate
    file_bytes: int | None = None
    memory_bytes: int | None = None
    quality: Quality | None = None
    speeds: Speeds | None = None
    speedup: float | None = None
    reason: str = ""


class OutOfTime(Exception):
    """The limit has passed in the middle of a measurement, which is lost."""


class TimeLimit:
    """A limit of seconds, by a clock that only moves forward."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s, self._clock, self._start = limit_s, clock, clock()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    def allows(self, seconds: float, share: float = 1.0) -> bool:
        """Whether something that takes so long would end within this share of the limit."""
        return self.spent + seconds <= share * self.limit_s

    def check(self) -> None:
        """Called between steps of a measurement.

        Raises:
            OutOfTime: the limit has passed.
        """
        if self.spent > self.limit_s:
            raise OutOfTime


def fate(layout: str, quality: Quality | None, speedup: float | None, max_divergence: float) -> Fate:
    """What becomes of a layout that was measured as far as there was time."""
    if layout == AS_IS:
        return "kept"
    if quality is None:
        return "no time"
    if quality.divergence > max_divergence:
        return "dropped: diverges"
    if speedup is None:
        return "no time"
    return "kept" if speedup >= WORTHWHILE else "slower"


def leaders(rows: Sequence[LayoutRow], count: int = 2) -> list[str]:
    """The fastest layouts among those kept, the file as it is being one of them."""
    kept = [row for row in rows if row.fate == "kept"]
    return [row.layout for row in sorted(kept, key=lambda row: -(row.speedup or 1.0))][:count]


def race(
    contenders: Sequence[Contender],
    measure: Callable[[Contender], Speeds],
    limit: TimeLimit,
    share: float,
    guess_s: float,
    stays: frozenset[Contender] = frozenset(),
) -> dict[Contender, Speeds]:
    """Median speeds of contenders that take turns, the first one first; those without one had no time.

    After each turn those that are hopelessly behind leave, but for those in `stays`. Nothing begins that would not end
    within its share of the limit, going by what it took before, or by `guess_s`.
    """
    seen: dict[Contender, list[Speeds]] = {contender: [] for contender in contenders}
    took = dict.fromkeys(contenders, guess_s)
    running = list(contenders)
    for turn in range(_REPETITIONS):
        for contender in running if turn % 2 == 0 else running[::-1]:
            if not limit.allows(took[contender], share):
                continue
            begun = limit.spent
            try:
                seen[contender].append(measure(contender))
            except OutOfTime:
                break
            took[contender] = limit.spent - begun
        medians = {contender: Speeds.median(passes) for contender, passes in seen.items() if passes}
        best = max((speed.together for speed in medians.values()), default=0.0)
        running = [
            contender
            for contender in running
            if contender in stays or contender not in medians or medians[contender].together >= _HOPELESS * best
        ]
    return medians


def fastest(current: Contender, medians: Mapping[Contender, Speeds]) -> Contender:
    """The fastest contender of the current one's layout, if it is worth a change."""
    if current not in medians:
        return current
    rivals = [contender for contender in medians if contender.layout == current.layout]
    best = max(rivals, key=lambda contender: medians[contender].together)
    gain = medians[best].together / medians[current].together
    return best if gain >= WORTHWHILE else current


def variants(current: Contender, axis: str, settings: RuntimeSettings) -> list[Contender]:
    """The contender with one setting changed, in every way that is worth trying and that the settings leave open."""
    shape = current.shape
    shapes: list[Shape] = []
    if axis == "threads" and settings.threads == "auto":
        shapes = [replace(shape, threads=threads) for threads in thread_counts()]
    elif axis == "batch":
        shapes = [replace(shape, batch_rows=min(rows, shape.cells)) for rows in _BATCH_ROWS]
    elif axis == "cache" and settings.deterministic is not True:
        shapes = [replace(shape, flash_attention=False)]
        if settings.kv_type == "auto":
            shapes += [replace(shape, key_type="bf16"), replace(shape, key_type="q8_0", value_type="q8_0")]
    found = dict.fromkeys(Contender(current.layout, changed) for changed in shapes if changed != shape)
    return list(found)


def thread_counts() -> list[int]:
    """Numbers of threads worth trying here."""
    cores = available_cores()
    return sorted({1, max(1, cores // 2), _physical_cores() or cores, cores})


def _physical_cores() -> int | None:
    """Cores without their hyperthreads; None where the system does not say."""
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(siblings.format(core)).read_text("ascii") for core in os.sched_getaffinity(0)})
    except (OSError, AttributeError):  # not Linux
        return None
