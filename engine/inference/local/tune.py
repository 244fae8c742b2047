"""Tuning: the fastest way to run a model on this machine that still answers as the original file does.

Layouts are tried first, each with the default threads and batch; then, on the best two, one setting after another.
Contenders take turns, so that what else the machine does falls on all of them. Takes a model file and a limit of
seconds, returns what was measured and what was chosen, and keeps the choice in the model's profile. Prints nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelError
from engine.inference.local.contest import (
    WORTHWHILE,
    Contender,
    LayoutRow,
    OutOfTime,
    TimeLimit,
    fastest,
    fate,
    leaders,
    race,
    variants,
)
from engine.inference.local.gguf import GgufHeader, read_header
from engine.inference.local.layouts import LAYOUTS, forget_layouts, laid_out, planned_header
from engine.inference.local.llama import LlamaModel, build_identity
from engine.inference.local.policy import Policy, check_memory, decide, planned_shape, throughput_policy
from engine.inference.local.profiles import AS_IS, Profile, Tuning, machine_key
from engine.inference.local.runner import Runner
from engine.inference.local.trial import Observation, Quality, Speeds, Work, compare, observe, speeds
from engine.inference.models import ModelFile
from engine.tasks.schema import RuntimeSettings

_CONVERTED_BYTES_PER_S = 50e6  # the first guess; 100 to 250 MB/s were seen on 2 cores
# Shares of the limit by which layouts are ready, layouts are compared and settings are compared.
_READY, _COMPARED, _SETTLED = 0.6, 0.8, 0.92
# A whole comparison costs about this many times what observing the original does.
_COST_OF_ALL = 30.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome. `noise` is the original's divergence from itself in other batches, None where there was no time."""

    tuning: Tuning
    rows: tuple[LayoutRow, ...]
    noise: Quality | None
    path: Path
    profile: Path
    seconds: float


def tune(
    model: ModelFile,
    settings: RuntimeSettings,
    *,
    limit_s: float,
    max_divergence: float,
    report: Report = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Measure, choose, and keep the choice for later runs. The copies that were not chosen are deleted.

    The limit can be passed by one conversion or one test for determinism, which cannot be interrupted.

    Raises:
        ModelError: the file cannot be loaded, does not fit in memory as it is, or the limit is too short to compare it
            with anything. What an earlier tuning found stays.
    """
    limit = TimeLimit(limit_s, clock)
    profile = Profile(model.sha256, machine_key(build_identity()))
    with Workshop(model, settings, profile) as shop:
        try:
            measured = _Tuning(shop, limit, max_divergence, report)
            tuning = measured.run()
            profile.keep_tuning(tuning, settings.deterministic is True)
        finally:
            forget_layouts(model.sha256, keep=profile.layouts())
        path = laid_out(model, tuning.layout)
        return Tuned(tuning, measured.rows(), measured.noise, path, profile.path, limit.spent)


def forget(model: ModelFile) -> list[Path]:
    """Undo a tuning: every later run takes the file as it is. The copies that were deleted."""
    Profile(model.sha256, machine_key(build_identity())).forget_tuning()
    return forget_layouts(model.sha256)


class Workshop:
    """One model file in several layouts: copies made, loaded while memory lasts, and run."""

    def __init__(self, model: ModelFile, settings: RuntimeSettings, profile: Profile) -> None:
        self.model, self.settings = model, settings
        self.header = read_header(model.path)
        self._profile = profile
        self._loaded: dict[str, LlamaModel] = {}
        self._policies: dict[Contender, Policy] = {}

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, layout: str) -> Contender:
        """A layout with the default shape."""
        return Contender(layout, planned_shape(self.header, self.settings, None))

    def planned_memory(self, contender: Contender) -> int:
        """Bytes that a contender will take.

        Raises:
            ModelError: they are not free.
        """
        header = planned_header(self.header, contender.layout)
        return check_memory(header, contender.shape, self.settings, f"{self.model.name} as {contender.layout}").total

    def policy(self, contender: Contender) -> Policy:
        """How a contender is run; tried out where that is not known yet."""
        if contender not in self._policies:
            loaded = self.loaded(contender)
            self._policies[contender] = decide(loaded, contender.shape, self.settings, self._profile, self.model.name)
        return self._policies[contender]

    @contextlib.contextmanager
    def running(self, contender: Contender, policy: Policy | None = None) -> Iterator[Runner]:
        """The model at work in fresh caches, by the contender's own policy or another."""
        policy = policy or self.policy(contender)
        runner = policy.open(self.loaded(contender))
        try:
            yield runner
        finally:
            runner.close()

    def loaded(self, contender: Contender) -> LlamaModel:
        """The weights; the other layouts make room where all of them do not fit."""
        if contender.layout not in self._loaded:
            try:
                self.planned_memory(contender)
            except ModelError:
                self.close()
                self.planned_memory(contender)
            path = laid_out(self.model, contender.layout)
            self._loaded[contender.layout] = LlamaModel(path, self.settings.gpu_layers, self.settings.main_gpu)
        return self._loaded[contender.layout]

    def unload(self, layout: str) -> None:
        """Free the weights of a layout that is out."""
        if layout in self._loaded:
            self._loaded.pop(layout).close()

    def close(self) -> None:
        """Free all weights."""
        for layout in list(self._loaded):
            self.unload(layout)


class _Tuning:
    """One tuning, from the original's logits to the choice."""

    def __init__(self, shop: Workshop, limit: TimeLimit, max_divergence: float, report: Report) -> None:
        self._shop, self._limit, self._max_divergence, self._report = shop, limit, max_divergence, report
        self._rows: dict[str, LayoutRow] = {}
        self._rate = _CONVERTED_BYTES_PER_S
        self.noise: Quality | None = None

    def rows(self) -> tuple[LayoutRow, ...]:
        """Every layout, the fastest first, those not measured last."""
        return tuple(sorted(self._rows.values(), key=lambda row: -(row.speedup or 0.0)))

    def run(self) -> Tuning:
        """Original, layouts, comparison, settings."""
        original = self._shop.start(AS_IS)
        try:
            self._observe_original(original)
        except OutOfTime:
            raise self._too_short() from None
        for layout, form in LAYOUTS.items():
            if form.file_type != self._shop.header.file_type:
                self._ready(self._shop.start(layout))
        self._check_there_is_a_choice(lambda row: row.quality is not None)
        self._compare_layouts(original)
        self._check_there_is_a_choice(lambda row: row.speedup is not None)
        tuning = self._settle(original)
        if self._limit.allows(self._observing_s):
            with contextlib.suppress(OutOfTime):
                self._observe_noise(original)
        return tuning

    def _observe_original(self, original: Contender) -> None:
        """The logits that all others are held against, and how much work fits into the limit."""
        self._report(f"{AS_IS}: reading")
        memory = self._shop.planned_memory(original)
        work = Work.of(self._shop.loaded(original))
        if work.longest > original.shape.cells:
            raise ModelError(
                f"{self._shop.model.name}: tuning needs a context of {work.longest} tokens, "
                f"this one holds {original.shape.cells}"
            )
        begun = self._limit.spent
        with self._shop.running(original) as runner:
            self._original = observe(runner, work, self._limit.check)
        self._whole_work, self._observing_s = work, self._limit.spent - begun
        self._step_s = self._limit.spent
        left = self._limit.limit_s - self._limit.spent
        self._work = work.scaled(min(1.0, max(0.0, left / (_COST_OF_ALL * self._observing_s))))
        size = self._shop.model.path.stat().st_size
        self._rows[AS_IS] = LayoutRow(AS_IS, "kept", size, memory, self._quality(self._original))

    def _ready(self, contender: Contender) -> None:
        """Make a layout and hold its logits against the original's, if there is room and time."""
        layout = contender.layout
        planned = planned_header(self._shop.header, layout)
        conversion_s = _size(planned) / self._rate
        if not self._limit.allows(conversion_s + self._step_s, _READY):
            self._rows[layout] = LayoutRow(layout, "no time")
            return
        self._report(f"{layout}: converting")
        begun = self._limit.spent
        try:
            memory = self._shop.planned_memory(contender)
            path = laid_out(self._shop.model, layout)
            converted = self._limit.spent
            self._shop.policy(contender)  # tried out here, where it does not count as reading
            self._limit.check()
            self._report(f"{layout}: reading")
            with self._shop.running(contender) as runner:
                quality = self._quality(observe(runner, self._whole_work, self._limit.check, self._original.paths))
        except ModelError as error:
            self._rows[layout] = LayoutRow(layout, "not possible", reason=str(error))
            return
        except OutOfTime:
            self._rows[layout] = LayoutRow(layout, "no time")
            return
        self._rate = max(_CONVERTED_BYTES_PER_S, _size(planned) / max(converted - begun, 1e-3))
        self._step_s = self._limit.spent - converted
        found = fate(layout, quality, None, self._max_divergence)
        self._rows[layout] = LayoutRow(layout, found, path.stat().st_size, memory, quality)

    def _quality(self, observation: Observation) -> Quality:
        return compare(self._original, observation)

    def _observe_noise(self, original: Contender) -> None:
        """How far the original is from itself when batches differ: what lies below that means nothing."""
        self._report(f"{AS_IS}: reading in other batches")
        shape = replace(original.shape, batch_rows=min(96, original.shape.batch_rows))
        with self._shop.running(original, throughput_policy(shape, self._shop.settings)) as runner:
            self.noise = self._quality(observe(runner, self._whole_work, self._limit.check, self._original.paths))

    def _check_there_is_a_choice(self, known: Callable[[LayoutRow], bool]) -> None:
        """Refuse to choose where time has left the original alone; not where no other layout can be had here."""
        others = [row for row in self._rows.values() if row.layout != AS_IS]
        if any(row.fate == "no time" for row in others) and not any(known(row) for row in others):
            raise self._too_short()

    def _too_short(self) -> ModelError:
        limit_s = self._limit.limit_s
        return ModelError(
            f"{self._shop.model.name}: {limit_s:g} s are too short to compare layouts here; "
            f"try --limit {2 * max(limit_s, self._limit.spent):.0f}"
        )

    def _compare_layouts(self, original: Contender) -> None:
        """Speeds of all layouts that are ready, dropped ones too, and what becomes of each."""
        ready = [self._shop.start(row.layout) for row in self._rows.values() if row.quality]
        medians = race(ready, self._measure, self._limit, _COMPARED, self._observing_s, frozenset({original}))
        for contender in ready:
            row, speed = self._rows[contender.layout], medians.get(contender)
            ratio = speed.together / medians[original].together if speed and original in medians else None
            found = row.fate
            if not found.startswith("dropped"):
                found = fate(row.layout, row.quality, ratio, self._max_divergence)
            self._rows[row.layout] = replace(row, speeds=speed, speedup=ratio, fate=found)
            if found != "kept":
                self._shop.unload(row.layout)

    def _settle(self, original: Contender) -> Tuning:
        """The best two layouts, one setting after another; the best of both."""
        best = [self._shop.start(layout) for layout in leaders(tuple(self._rows.values()))]
        gains = {contender.layout: self._rows[contender.layout].speedup or 1.0 for contender in best}
        for axis in ("threads", "batch", "cache"):
            tried = [
                variant
                for contender in best
                for variant in variants(contender, axis, self._shop.settings)
                if self._fits(variant)
            ]
            if not tried:
                continue
            medians = race([*best, *tried], self._measure, self._limit, _SETTLED, 2 * self._step_s, frozenset(best))
            for index, contender in enumerate(best):
                changed = fastest(contender, medians)
                if changed != contender and (axis != "cache" or self._stays_faithful(changed)):
                    gains[contender.layout] *= medians[changed].together / medians[contender].together
                    best[index] = changed
        winner = max(best, key=lambda contender: gains[contender.layout])
        if gains[winner.layout] < WORTHWHILE:
            winner = original
        return self._tuning(winner, gains[winner.layout] if winner != original else 1.0)

    def _stays_faithful(self, contender: Contender) -> bool:
        """Whether a layout still answers as the original does with another type of cache; its row gets the quality."""
        if not self._limit.allows(self._step_s):
            return False
        try:
            with self._shop.running(contender) as runner:
                quality = self._quality(observe(runner, self._whole_work, self._limit.check, self._original.paths))
        except OutOfTime:
            return False
        if quality.divergence > self._max_divergence:
            return False
        self._rows[contender.layout] = replace(self._rows[contender.layout], quality=quality)
        return True

    def _fits(self, contender: Contender) -> bool:
        try:
            self._shop.planned_memory(contender)
        except ModelError:
            return False
        return True

    def _measure(self, contender: Contender) -> Speeds:
        self._report(f"timing {contender}")
        with self._shop.running(contender) as runner:
            return speeds(runner, self._work, self._limit.check)

    def _tuning(self, winner: Contender, speedup: float) -> Tuning:
        quality, shape = self._rows[winner.layout].quality, winner.shape
        return Tuning(
            layout=winner.layout,
            threads=shape.threads,
            batch_rows=shape.batch_rows,
            key_type=shape.key_type,
            value_type=shape.value_type,
            flash_attention=shape.flash_attention,
            speedup=round(speedup, 3),
            divergence=round(quality.divergence if quality else 0.0, 6),
        )


def _size(header: GgufHeader) -> int:
    return sum(tensor.size for tensor in header.tensors)
