"""Tuning: which way to run a model is chosen, within which time, where it is kept and when it is used."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support_inference import answers

from engine.cli import run
from engine.errors import ModelError
from engine.inference.local.backend import LlamaBackend
from engine.inference.local.contest import (
    Contender,
    LayoutRow,
    TimeLimit,
    fastest,
    fate,
    leaders,
    race,
    thread_counts,
    variants,
)
from engine.inference.local.gguf import GgufHeader, Tensor, read_header
from engine.inference.local.layouts import LAYOUTS, forget_layouts, laid_out, layout_path, planned_header
from engine.inference.local.llama import build_identity
from engine.inference.local.profiles import AS_IS, Profile, Tuning, machine_key
from engine.inference.local.shape import Shape
from engine.inference.local.trial import Observation, Quality, Speeds, compare, divergence
from engine.inference.local.tune import Tuned, forget, tune
from engine.inference.models import ModelFile, find_model
from engine.inference.opening import open_backend
from engine.records import Plain, Score
from engine.tasks.schema import RuntimeSettings

SHAPE = Shape(cells=2048, batch_rows=512, threads=2)
ROOT = Path(__file__).parents[1]


def contender(layout: str, **changes: int) -> Contender:
    return Contender(layout, replace(SHAPE, **changes))


def even(speed: float) -> Speeds:
    return Speeds(speed, speed, speed)


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Track:
    """Measures contenders by a table of speeds; each measurement takes as long as 100 tokens do."""

    def __init__(self, clock: Clock, tokens_per_s: dict[str, float]) -> None:
        self.clock, self.tokens_per_s = clock, tokens_per_s
        self.asked: list[str] = []

    def __call__(self, measured: Contender) -> Speeds:
        speed = self.tokens_per_s[measured.layout]
        self.clock.now += 100 / speed
        self.asked.append(measured.layout)
        return even(speed)


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────


def test_speed_of_the_mixture_is_the_weighted_harmonic_mean() -> None:
    assert Speeds(300.0, 300.0, 300.0).together == pytest.approx(300.0)
    assert Speeds(600.0, 100.0, 400.0).together == pytest.approx(1 / (0.6 / 600 + 0.2 / 100 + 0.2 / 400))


def test_median_of_repetitions_is_taken_kind_by_kind() -> None:
    passes = [Speeds(1.0, 30.0, 5.0), Speeds(2.0, 10.0, 6.0), Speeds(9.0, 20.0, 4.0)]
    assert Speeds.median(passes) == Speeds(2.0, 20.0, 5.0)


@pytest.mark.parametrize(
    ("layout", "nats", "speedup", "expected"),
    [
        (AS_IS, 0.0, 1.0, "kept"),
        ("BF16", 0.004, 2.0, "kept"),
        ("Q4_0", 0.25, 3.0, "dropped: diverges"),
        ("Q4_0", 0.25, None, "dropped: diverges"),
        ("F16", 0.003, 0.9, "slower"),
        ("F16", 0.003, 1.04, "slower"),
        ("F16", 0.003, None, "no time"),
    ],
)
def test_fate_of_a_layout(layout: str, nats: float, speedup: float | None, expected: str) -> None:
    assert fate(layout, Quality(nats, 1.0, 100), speedup, max_divergence=0.02) == expected


def test_a_layout_whose_answers_were_never_compared_is_not_kept() -> None:
    assert fate("BF16", None, 3.0, max_divergence=0.02) == "no time"


def test_leaders_are_the_fastest_layouts_that_were_kept() -> None:
    rows = [
        LayoutRow(AS_IS, "kept", speedup=1.0),
        LayoutRow("Q4_0", "dropped: diverges", speedup=4.0),
        LayoutRow("Q8_0", "kept", speedup=1.7),
        LayoutRow("BF16", "kept", speedup=2.3),
        LayoutRow("F16", "slower", speedup=0.9),
    ]
    assert leaders(rows) == ["BF16", "Q8_0"]
    assert leaders(rows[:2]) == [AS_IS]


def test_a_setting_changes_only_for_a_gain_that_is_worth_it() -> None:
    current, other, rival = contender("BF16"), contender("BF16", threads=1), contender("Q8_0")
    assert fastest(current, {current: even(100), other: even(104), rival: even(900)}) == current
    assert fastest(current, {current: even(100), other: even(106), rival: even(900)}) == other
    assert fastest(current, {other: even(106)}) == current


def test_variants_leave_alone_what_the_settings_fix() -> None:
    current, open_settings = contender("BF16"), RuntimeSettings()
    assert [one.shape.threads for one in variants(current, "threads", open_settings)] == [
        count for count in thread_counts() if count != SHAPE.threads
    ]
    assert variants(current, "threads", RuntimeSettings(threads=2)) == []
    assert [one.shape.batch_rows for one in variants(current, "batch", open_settings)] == [128, 256, 1024]
    assert variants(current, "cache", RuntimeSettings(deterministic=True)) == []
    tried = [one.shape for one in variants(current, "cache", open_settings)]
    assert [(shape.flash_attention, shape.key_type) for shape in tried] == [
        (False, "f16"),
        (True, "bf16"),
        (True, "q8_0"),
    ]
    fixed = variants(current, "cache", RuntimeSettings(kv_type="f16"))
    assert [one.shape for one in fixed] == [replace(SHAPE, flash_attention=False)]


def test_a_batch_is_never_larger_than_the_context() -> None:
    small = contender("BF16", cells=200, batch_rows=200)
    assert [one.shape.batch_rows for one in variants(small, "batch", RuntimeSettings())] == [128]


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def test_contenders_take_turns_and_every_second_turn_goes_backwards() -> None:
    clock = Clock()
    track = Track(clock, {AS_IS: 100.0, "BF16": 110.0, "Q8_0": 105.0})
    medians = race([contender(name) for name in track.tokens_per_s], track, TimeLimit(1000, clock), 1.0, 1.0)
    assert track.asked == [AS_IS, "BF16", "Q8_0", "Q8_0", "BF16", AS_IS, AS_IS, "BF16", "Q8_0"]
    assert medians[contender("BF16")].together == pytest.approx(110.0)


def test_a_hopeless_contender_leaves_unless_it_stays_for_comparison() -> None:
    clock = Clock()
    track = Track(clock, {AS_IS: 100.0, "Q8_0": 150.0, "BF16": 300.0})
    contenders = [contender(name) for name in track.tokens_per_s]
    medians = race(contenders, track, TimeLimit(1000, clock), 1.0, 1.0, stays=frozenset({contender(AS_IS)}))
    assert {name: track.asked.count(name) for name in track.tokens_per_s} == {AS_IS: 3, "Q8_0": 1, "BF16": 3}
    assert len(medians) == 3


@pytest.mark.parametrize("limit_s", [0.5, 3.0, 7.0, 20.0])
def test_a_race_ends_within_its_limit(limit_s: float) -> None:
    clock = Clock()
    track = Track(clock, {AS_IS: 100.0, "Q8_0": 110.0, "BF16": 120.0})
    limit = TimeLimit(limit_s, clock)
    medians = race([contender(name) for name in track.tokens_per_s], track, limit, 1.0, guess_s=1.0)
    assert limit.spent <= limit_s
    assert len(medians) == len(set(track.asked))
    assert bool(medians) == (limit_s >= 1.0)


def test_a_measurement_that_outlasts_the_limit_is_lost_and_ends_the_race() -> None:
    clock = Clock()
    limit = TimeLimit(5.0, clock)

    def measure(measured: Contender) -> Speeds:
        clock.now += 1.0 if measured.layout == AS_IS else 60.0
        limit.check()
        return even(100.0)

    medians = race([contender(AS_IS), contender("BF16"), contender("Q8_0")], measure, limit, 1.0, guess_s=1.0)
    assert list(medians) == [contender(AS_IS)]
    assert limit.spent == 61.0


def test_a_share_of_the_limit_is_kept_for_what_comes_after() -> None:
    clock = Clock()
    limit = TimeLimit(10.0, clock)
    race([contender(AS_IS)], Track(clock, {AS_IS: 50.0}), limit, 0.5, guess_s=2.0)
    assert limit.spent == pytest.approx(4.0)


# ── quality ──────────────────────────────────────────────────────────────────────────────────────


def test_divergence_agrees_with_one_worked_by_hand() -> None:
    first, second = np.log(np.array([0.5, 0.5], np.float32)), np.log(np.array([0.25, 0.75], np.float32))
    assert divergence(first, second) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=1e-6)
    assert divergence(first, first + np.float32(7.0)) == pytest.approx(0.0, abs=1e-6)


def test_quality_is_over_the_positions_that_both_have_seen() -> None:
    a, b = np.array([2.0, 0.0, 0.0], np.float32), np.array([0.0, 2.0, 0.0], np.float32)
    quality = compare(Observation(((),), ({5: a, 6: a, 9: a},)), Observation(((),), ({5: a, 6: b},)))
    assert quality.positions == 2
    assert quality.agreement == 0.5
    assert quality.divergence == pytest.approx(divergence(a, b) / 2)


# ── layouts and profile ──────────────────────────────────────────────────────────────────────────


def test_planned_header_converts_matrices_and_leaves_the_rest() -> None:
    tensors = (Tensor("blk.0.ffn_up.weight", (64, 8), 3, 320), Tensor("output_norm.weight", (64,), 0, 256))
    header = GgufHeader("llama", 1, 64, (1,), (1,), 64, 64, 64, 10, 512, 3, tensors)
    assert [tensor.size for tensor in planned_header(header, "BF16").tensors] == [1024, 256]
    assert [tensor.size for tensor in planned_header(header, "Q8_0").tensors] == [544, 256]
    assert planned_header(header, AS_IS) is header


def test_an_unknown_layout_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown layout 'Q9': one of BF16, Q8_0, Q4_0, F16"):
        laid_out(ModelFile("m", tmp_path / "m.gguf", "ab" * 32), "Q9")


def test_a_source_that_is_no_model_cannot_be_laid_out(tmp_path: Path) -> None:
    source = tmp_path / "m.gguf"
    source.write_bytes(b"GGUF and no more")
    model = ModelFile("m", source, "cd" * 32)
    with pytest.raises(ModelError, match="damaged GGUF"):
        laid_out(model, "BF16")
    assert not list(layout_path(model.sha256, "BF16").parent.glob("cdcd*"))


TUNING = Tuning("BF16", 2, 256, "f16", "f16", True, 2.5, 0.004)


def test_a_tuning_comes_back_as_it_was_kept_and_can_be_forgotten() -> None:
    profile = Profile("12" * 32, "machine")
    assert profile.tuning() is None
    profile.keep_tuning(TUNING)
    assert Profile("12" * 32, "machine").tuning() == TUNING
    assert Profile("12" * 32, "another machine").tuning() is None
    assert Profile("34" * 32, "machine").tuning() is None
    profile.forget_tuning()
    assert profile.tuning() is None


@pytest.mark.parametrize("first", [False, True])
def test_a_tuning_holds_for_the_other_policy_until_that_has_its_own(first: bool) -> None:
    profile, other = Profile("56" * 32, "machine"), replace(TUNING, layout="Q8_0")
    profile.keep_tuning(TUNING, deterministic=first)
    assert profile.tuning(first) == profile.tuning(not first) == TUNING
    profile.keep_tuning(other, deterministic=not first)
    assert (profile.tuning(first), profile.tuning(not first)) == (TUNING, other)
    assert profile.layouts() == {"BF16", "Q8_0"}
    profile.forget_tuning()
    assert profile.layouts() == set()


@pytest.mark.parametrize("name", ["scripted", "scripted:5ms", "http://127.0.0.1:1/v1#m"])
def test_tuning_a_model_without_a_file_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is no model file on this machine" in error


# ── on the embedded model ────────────────────────────────────────────────────────────────────────


def embedded() -> ModelFile:
    return find_model("smollm2-135m", ROOT)


QUESTIONS = tuple(
    Score(Plain(f"Message: {text}\nTeam:"), (" billing", " shipping", " website"))
    for text in ("My parcel has not come.", "I was charged twice.", "The page is blank.")
)
# One thread, so that a busy machine costs less.
SETTINGS = RuntimeSettings(threads=1, context=2048)


@pytest.fixture
def tuned_profile() -> Iterator[Profile]:
    """The embedded model's profile, saying that BF16 is best; without a tuning again afterwards."""
    model = embedded()
    profile = Profile(model.sha256, machine_key(build_identity()))
    profile.keep_tuning(replace(TUNING, threads=1))
    yield profile
    forget(model)


def opened(settings: RuntimeSettings = SETTINGS) -> LlamaBackend:
    backend = open_backend("smollm2-135m", ROOT, settings)
    assert isinstance(backend, LlamaBackend)
    return backend


@pytest.mark.model
def test_a_tuned_model_has_another_identity_and_nearly_the_same_answers(tuned_profile: Profile) -> None:
    tuned, plain = opened(), opened(replace(SETTINGS, tune=False))
    try:
        assert tuned.model_path == layout_path(embedded().sha256, "BF16")
        assert plain.model_path == embedded().path
        assert tuned.identity != plain.identity
        assert "as BF16" in tuned.identity
        assert tuned.sha256 == plain.sha256
        assert tuned.notes == plain.notes == ()
        pairs = zip(answers(tuned, QUESTIONS), answers(plain, QUESTIONS), strict=True)
        assert all(
            abs(a - b) < 1.0
            for ours, theirs in pairs
            for a, b in zip(ours.loglikelihoods or (), theirs.loglikelihoods or (), strict=True)
        )
    finally:
        tuned.close()
        plain.close()


@pytest.mark.model
@pytest.mark.parametrize("damage", ["absent", "cut", "foreign", "other layout"])
def test_a_copy_that_is_not_whole_is_made_again(damage: str) -> None:
    model = embedded()
    path = laid_out(model, "Q8_0")
    whole = path.stat()
    assert laid_out(model, "Q8_0").stat().st_mtime_ns == whole.st_mtime_ns
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: whole.st_size // 2])
    elif damage == "foreign":
        path.write_bytes(b"something else")
    else:
        shutil.copyfile(model.path, path)
    assert laid_out(model, "Q8_0") == path
    assert path.stat().st_size == whole.st_size
    assert read_header(path).file_type == LAYOUTS["Q8_0"].file_type
    assert forget_layouts(model.sha256) == [path]


@pytest.mark.model
def test_a_copy_that_cannot_be_put_in_its_place_leaves_nothing_behind() -> None:
    model = replace(embedded(), sha256="ef" * 32)
    place = layout_path(model.sha256, "Q8_0")
    place.mkdir(parents=True)
    with pytest.raises(ModelError, match="cannot be written"):
        laid_out(model, "Q8_0")
    assert [path for path in place.parent.iterdir() if path.name.startswith("efef")] == [place]
    place.rmdir()


@pytest.mark.model
def test_another_source_gets_another_copy(tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    data = bytearray(embedded().path.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    model = find_model(str(changed), ROOT)
    assert laid_out(model, "Q8_0") != laid_out(embedded(), "Q8_0")
    assert forget_layouts(model.sha256, keep={"Q8_0"}) == []
    assert len(forget_layouts(model.sha256)) == len(forget_layouts(embedded().sha256)) == 1


@pytest.mark.model
def test_a_tuning_that_cannot_be_had_falls_back_with_a_note(tuned_profile: Profile) -> None:
    tuned_profile.keep_tuning(replace(TUNING, layout="Q3_Z"))
    backend = opened()
    try:
        assert backend.model_path == embedded().path
        assert " as " not in backend.identity
        assert len(backend.notes) == 1
        assert "runs as it is, without the tuning found for it: unknown layout 'Q3_Z'" in backend.notes[0]
    finally:
        backend.close()


@pytest.mark.model
@pytest.mark.slow
def test_tune_keeps_a_layout_that_is_at_least_as_fast_and_later_runs_use_it() -> None:
    model = embedded()
    try:
        # A slow clock, for machines that do other things too.
        tuned = tune(model, SETTINGS, limit_s=30.0, max_divergence=0.02, clock=lambda: time.monotonic() / 3)
        check_outcome(tuned)
        backend = opened()
        assert backend.model_path == tuned.path
        backend.close()
    finally:
        forget(model)
    assert not list(layout_path(model.sha256, "BF16").parent.glob(f"{model.sha256[:24]}*"))


def check_outcome(tuned: Tuned) -> None:
    rows = {row.layout: row for row in tuned.rows}
    assert tuned.seconds <= 33.0
    assert tuned.tuning.speedup >= 1.0
    assert tuned.tuning.divergence <= 0.02
    assert rows[AS_IS].fate == "kept"
    assert rows[AS_IS].speedup == 1.0
    assert rows.keys() == {AS_IS, *LAYOUTS}
    compared = [row for row in tuned.rows if row.quality]
    assert all(row.quality and row.quality.positions >= 100 for row in compared)
    for row in compared:
        assert (row.fate == "dropped: diverges") == (row.layout == "Q4_0"), row
    assert json.loads(tuned.profile.read_text("utf-8"))
