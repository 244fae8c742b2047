"""How a model comes to be run: settings before tuning before defaults, verdicts that are remembered."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.errors import ModelError
from engine.inference.local.determinism import deterministic_shape
from engine.inference.local.gguf import GgufHeader
from engine.inference.local.llama import LlamaModel
from engine.inference.local.policy import Policy, available_cores, decide, planned_shape, throughput_policy
from engine.inference.local.profiles import Profile, Tuning, Verdict, machine_key
from engine.inference.local.shape import Shape
from engine.tasks.schema import KVType, RuntimeSettings

HEADER = GgufHeader("llama", 2, 64, (4, 4), (2, 2), 16, 16, 128, 500, 4096, 1, ())
TUNING = Tuning("f16", 3, 128, "q8_0", "q8_0", True, 2.5, 0.01)
MODEL = cast(LlamaModel, SimpleNamespace(path=Path("some.gguf")))  # never asked where the verdict is known
SHAPE = Shape(4096, 512, 2)


def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, kv: str = "f16/bf16") -> Profile:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile("a" * 64, "machine")
    profile.keep_verdict(f"some {kv} threads 2 gpu 0 split", verdict)
    return profile


def test_without_settings_the_model_and_the_machine_decide() -> None:
    shape = planned_shape(HEADER, RuntimeSettings(), None)
    assert shape == Shape(4096, 512, available_cores(), "f16", "f16", True)
    assert planned_shape(replace(HEADER, trained_context=100_000), RuntimeSettings(), None).cells == 8192


def test_tuning_comes_before_defaults_and_settings_before_tuning() -> None:
    tuned = planned_shape(HEADER, RuntimeSettings(), replace(TUNING, threads=1))
    assert (tuned.threads, tuned.batch_rows, tuned.key_type) == (1, 128, "q8_0")
    elsewhere = planned_shape(HEADER, RuntimeSettings(), replace(TUNING, threads=available_cores() + 1))
    assert elsewhere.threads == available_cores(), "fewer cores are free than when it was tuned"
    said = planned_shape(HEADER, RuntimeSettings(threads=1, kv_type="f16", context=64), TUNING)
    assert (said.threads, said.key_type, said.value_type, said.cells, said.batch_rows) == (1, "f16", "f16", 64, 64)


def test_a_deterministic_shape_keeps_quantized_types_and_replaces_tiled_ones() -> None:
    assert deterministic_shape(SHAPE, 2).value_type == "bf16"
    assert deterministic_shape(replace(SHAPE, flash_attention=False), 2).flash_attention
    quantized = replace(SHAPE, key_type="q8_0", value_type="q8_0")
    assert deterministic_shape(quantized, 8) == replace(quantized, padding=8)


def test_a_model_that_passed_the_test_runs_deterministic_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = known(tmp_path, monkeypatch, Verdict(True, 8, 0.0))
    policy = decide(MODEL, SHAPE, RuntimeSettings(deterministic=True), profile, "some")
    assert (policy.deterministic, policy.shape) == (True, deterministic_shape(SHAPE, 8))
    assert decide(MODEL, SHAPE, RuntimeSettings(deterministic="preferred"), profile, "some") == policy
    loose = decide(MODEL, SHAPE, RuntimeSettings(), profile, "some")
    assert (loose.deterministic, replace(loose.shape, tile=0)) == (False, SHAPE)
    assert policy.identity != loose.identity


def test_a_model_that_failed_it_runs_without_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = known(tmp_path, monkeypatch, Verdict(False, 8, 0.25))
    assert not decide(MODEL, SHAPE, RuntimeSettings(deterministic="preferred"), profile, "some").deterministic
    with pytest.raises(ModelError, match=r"logits differ by up to 0\.25\); set runtime\.deterministic to false"):
        decide(MODEL, SHAPE, RuntimeSettings(deterministic=True), profile, "some")


def test_threads_and_batches_are_not_part_of_what_changes_an_answer() -> None:
    fixed = deterministic_shape(SHAPE, 2)
    policy = Policy(fixed, fixed, True, 64)
    other = Policy(replace(fixed, threads=7, batch_rows=64, cells=512), fixed, True, 8)
    assert policy.identity == other.identity
    assert policy.identity != replace(policy, shape=replace(policy.shape, padding=8)).identity


@pytest.mark.parametrize(
    ("machine", "settings", "value_type", "written"),
    [
        ("x86_64", RuntimeSettings(), "f16", "bf16"),
        ("AMD64", RuntimeSettings(), "f16", "bf16"),
        ("arm64", RuntimeSettings(), "f16", "f16"),
        ("x86_64", RuntimeSettings(gpu_layers=-1), "f16", "f16"),
        ("x86_64", RuntimeSettings(), "q8_0", "q8_0"),
    ],
)
def test_values_of_written_texts_are_kept_in_a_type_that_sums_fast(
    monkeypatch: pytest.MonkeyPatch, machine: str, settings: RuntimeSettings, value_type: KVType, written: KVType
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    policy = throughput_policy(replace(SHAPE, value_type=value_type), settings)
    assert (policy.shape.value_type, policy.writing.value_type) == (value_type, written)
    assert f"writing f16/{written}" in policy.identity


# ── profiles ─────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_is_read_back_and_holds_for_one_model_and_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile("a" * 64, "here")
    assert (profile.tuning(), profile.verdict("x")) == (None, None)
    profile.keep_tuning(TUNING)
    profile.keep_verdict("x", Verdict(True, 2, 0.0))
    again = Profile("a" * 64, "here")
    assert (again.tuning(), again.verdict("x"), again.verdict("y")) == (TUNING, Verdict(True, 2, 0.0), None)
    assert Profile("a" * 64, "elsewhere").tuning() is None
    assert Profile("b" * 64, "here").tuning() is None
    assert machine_key("one build") != machine_key("another")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"here": 3}', '{"here": {"tuning": {"layout": "f16"}}}', "\x00"])
def test_a_damaged_profile_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile("a" * 64, "here")
    profile.path.parent.mkdir(parents=True)
    profile.path.write_text(content, "utf-8")
    assert profile.tuning() is None
    profile.keep_tuning(TUNING)
    assert json.loads(profile.path.read_text("utf-8"))["here"]
    assert profile.tuning() == TUNING


def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    profile = Profile("a" * 64, "here")
    profile.keep_tuning(TUNING)
    assert profile.tuning() is None
