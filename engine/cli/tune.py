"""localgrad tune: find the fastest way to run a model on this machine that still answers as the original does."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import terminal
from engine.cli.progress import working
from engine.errors import UsageError
from engine.inference.models import ModelFile, find_model
from engine.inference.opening import is_file
from engine.tasks.schema import RuntimeSettings

if TYPE_CHECKING:
    from engine.inference.local.contest import LayoutRow
    from engine.inference.local.tune import Tuned

_LIMIT_S = 120.0
# SmolLM2-135M in Q4_1, over 127 positions: BF16 0.0037 and Q8_0 0.0064 nats from the original, Q4_0 0.243; the original
# from itself in other batches 0.004.
_MAX_DIVERGENCE = 0.02
_COLUMNS = ["layout", "MB", "RAM, MB", "scoring", "writing", "reading", "speed", "divergence", "same token", "verdict"]


@click.command("tune")
@click.argument("model")
@click.option(
    "--limit",
    "limit_s",
    metavar="SECONDS",
    default=_LIMIT_S,
    show_default=True,
    type=click.FloatRange(min=5),
    help="How long to measure.",
)
@click.option(
    "--max-divergence",
    metavar="NATS",
    default=_MAX_DIVERGENCE,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How far a layout's next-token distribution may be from the original's.",
)
@click.option("--deterministic", is_flag=True, help="Tune for `deterministic: true`; the cache's types are fixed then.")
@click.option("--forget", is_flag=True, help="Undo the tuning and delete its file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(model: str, limit_s: float, max_divergence: float, deterministic: bool, forget: bool, as_json: bool) -> int:
    """Time MODEL in several layouts and settings, and keep the best for every later run here.

    A layout is the same weights in another format. One whose answers differ from the original's is dropped.
    """
    if not is_file(model):
        raise UsageError(f"{model!r} is no model file on this machine; tune takes one, such as smollm2-135m or a .gguf")
    file = find_model(model, Path.cwd())
    if forget:
        return _forget(file, as_json)
    from engine.inference.local.tune import tune  # here, because importing llama_cpp takes 0.3 s

    settings = RuntimeSettings(deterministic=deterministic)
    with working() as report:
        tuned = tune(file, settings, limit_s=limit_s, max_divergence=max_divergence, report=report)
    if as_json:
        terminal.print_result(_facts(file, tuned))
    else:
        _show(file, tuned, max_divergence)
    return 0


def _forget(file: ModelFile, as_json: bool) -> int:
    from engine.inference.local.tune import forget

    gone = forget(file)
    if as_json:
        terminal.print_result({"model": file.name, "deleted": [str(path) for path in gone]})
    else:
        terminal.say(f"{file.name} runs as it is again" + "".join(f"; deleted {path}" for path in gone))
    return 0


def _facts(file: ModelFile, tuned: "Tuned") -> dict[str, Any]:
    return (
        {"model": file.name, "sha256": file.sha256}
        | asdict(tuned)
        | {
            "path": str(tuned.path),
            "profile": str(tuned.profile),
        }
    )


def _show(file: ModelFile, tuned: "Tuned", max_divergence: float) -> None:
    terminal.table(_COLUMNS, [_cells(row) for row in tuned.rows], numbers=range(1, 9))
    terminal.say("scoring, writing and reading are in tokens/s, the divergence from the original in nats")
    for row in tuned.rows:
        if row.reason:
            terminal.say(f"{row.layout}: {row.reason}")
    if tuned.noise:
        terminal.say(
            f"the original is {tuned.noise.divergence:.4f} nats from itself in other batches; "
            f"layouts beyond {max_divergence:g} are dropped"
        )
    best = tuned.tuning
    terminal.say(
        f"winner: {best.layout}, {best.threads} threads, batches of {best.batch_rows}, "
        f"{best.speedup:.2f} times as fast as the file as it is (found in {terminal.duration(tuned.seconds)})"
    )
    terminal.say(f"kept in {tuned.profile}; every run here uses {tuned.path}")
    terminal.say(
        "to run without it: `tune: false` under `runtime:` in the task; "
        f"to undo it: {terminal.own_name()} tune {file.name} --forget"
    )


def _cells(row: "LayoutRow") -> list[str]:
    speeds, quality = row.speeds, row.quality
    return [
        row.layout,
        f"{row.file_bytes / 1e6:.0f}" if row.file_bytes else "",
        f"{row.memory_bytes / 1e6:.0f}" if row.memory_bytes else "",
        *(f"{value:.0f}" if value else "" for value in _three(row)),
        f"{row.speedup:.2f}×" if speeds and row.speedup else "",
        f"{quality.divergence:.4f}" if quality else "",
        terminal.percent(quality.agreement) if quality else "",
        row.fate,
    ]


def _three(row: "LayoutRow") -> tuple[float | None, float | None, float | None]:
    return (row.speeds.scoring, row.speeds.writing, row.speeds.reading) if row.speeds else (None, None, None)
