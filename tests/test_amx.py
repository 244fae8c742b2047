"""Trying llama.cpp's AMX kernels in a process that may die of it."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import pytest

from engine.inference.local import amx
from engine.inference.local.llama import LlamaModel
from engine.inference.models import find_model

EMBEDDED = "smollm2-135m"
BUILT_IN = "llama-cpp-python 0 | CPU : AMX_INT8 = 1 | "


def child(code: str) -> Sequence[str]:
    return (sys.executable, "-c", f"import os, signal, sys; {code}")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"some")
    return path


def never(*_: object, **__: object) -> None:
    raise AssertionError("asked again")


def test_a_build_without_the_kernels_is_not_asked(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx.subprocess, "run", never)
    assert amx.holds(weights, "llama-cpp-python 0 | CPU : AVX2 = 1 | ")


@pytest.mark.parametrize(
    ("code", "holds"),
    [
        ("sys.exit(0)", True),
        ("os.kill(os.getpid(), signal.SIGSEGV)", False),
        ("os.kill(os.getpid(), signal.SIGILL)", False),
    ],
)
def test_a_file_is_asked_about_once(weights: Path, monkeypatch: pytest.MonkeyPatch, code: str, holds: bool) -> None:
    monkeypatch.setattr(amx, "_CHILD", child(code))
    assert amx.holds(weights, BUILT_IN) == holds
    monkeypatch.setattr(amx.subprocess, "run", never)
    assert amx.holds(weights, BUILT_IN) == holds
    with pytest.raises(AssertionError, match="asked again"):
        amx.holds(weights, BUILT_IN.replace("0", "1", 1))
    weights.write_bytes(b"others")
    with pytest.raises(AssertionError, match="asked again"):
        amx.holds(weights, BUILT_IN)


@pytest.mark.parametrize("code", ["sys.exit(1)", f"os.kill(os.getpid(), {int(signal.SIGKILL)})"])
def test_an_end_that_says_nothing_of_the_kernels_is_not_remembered(
    weights: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(amx, "_CHILD", child(code))
    assert not amx.holds(weights, BUILT_IN)
    monkeypatch.setattr(amx, "_CHILD", child("sys.exit(0)"))
    assert amx.holds(weights, BUILT_IN)


def test_a_cache_folder_that_cannot_be_written_is_no_error(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights))
    monkeypatch.setattr(amx, "_CHILD", child("sys.exit(0)"))
    assert amx.holds(weights, BUILT_IN)


@pytest.mark.model
def test_the_real_child_says_that_the_model_can_be_computed() -> None:
    """Without the kernels in the build it computes with others, which hold as well."""
    assert amx.subprocess.run([*amx._CHILD, str(find_model(EMBEDDED, Path()).path)], check=False).returncode in (
        0,
        *amx._OWN_DEATHS,
    )
    assert amx.subprocess.run([*amx._CHILD, __file__], capture_output=True, check=False).returncode == 1


@pytest.mark.model
@pytest.mark.parametrize("code", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_kernels_that_die_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    asked: list[bool] = []
    load = llama_cpp.llama_model_load_from_file

    def loading(path: bytes, parameters: llama_cpp.llama_model_params) -> object:
        asked.append(bool(parameters.use_extra_bufts))
        parameters.use_extra_bufts = False
        return load(path, parameters)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(amx, "_CHILD", child(code))
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: b"CPU : AMX_INT8 = 1 | ")
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loading)
    LlamaModel(find_model(EMBEDDED, Path()).path).close()
    assert asked == ["exit(0)" in code]
