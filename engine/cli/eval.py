"""localgrad eval: score a program on a split of a task."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine.cli import terminal
from engine.cli.options import Common, runtime_options
from engine.cli.progress import evaluating
from engine.cli.session import check_model, read_work, task_runtime, tell_findings, with_model, with_runtime
from engine.errors import UsageError
from engine.evaluation import Evaluation, evaluate, prediction_row
from engine.program.saved import load_saved
from engine.store.traces import evaluation_name
from engine.tasks.taskfile import load_task

QUALITY_GATE = 3


@click.command("eval")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.option(
    "--program",
    "program_file",
    type=click.Path(path_type=Path),
    help="Score this saved program instead of the declared one.",
)
@click.option("--split", type=click.Choice(["train", "dev", "test"]), default="dev", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of the split.")
@click.option("--model", help="Another model than the task names.")
@click.option("--out", type=click.Path(path_type=Path), help="Write every prediction to this JSONL file.")
@click.option("--fail-under", type=click.FloatRange(0, 1), help="Exit with 3 where the score is lower.")
@runtime_options
def command(
    task_file: Path, program_file: Path | None, split: Any, limit: int | None, model: str | None,
    out: Path | None, fail_under: float | None, common: Common,
) -> int:  # fmt: skip
    """Score a task's program on one split, with a 95% interval."""
    task = with_runtime(with_model(load_task(task_file), model), common.runtime)
    work = read_work(task)
    saved = load_saved(program_file) if program_file else None
    program = saved.program if saved else work.program
    examples = work.splits.named(split)[:limit]
    if not examples:
        raise UsageError(f"{task_file}: the task has no {split} split")
    for example in examples[:1]:
        program.check_inputs(example.inputs) if saved else None
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(f"--out {out}: name a file in a folder that is there")
    with task_runtime(task, program, common.store) as runtime:
        if saved and program_file:
            check_model(saved, runtime, program_file)
        tell_findings(work, program)
        run = evaluation_name(task.file.name, program.fingerprint)
        with evaluating(f"{task.file.name} {split}", len(examples)) as watch:
            result = evaluate(program, examples, work.metric, runtime, run=run, watch=watch)
    if out is not None:
        _write(out, result)
    if common.as_json:
        terminal.print_result(_body(result, split, task.file.metric))
    else:
        _show(result, task.file.name, split)
    below = fail_under is not None and result.score < fail_under
    if below:
        terminal.complain(f"score {result.score:.4f} is under the gate of {fail_under}")
    return QUALITY_GATE if below else 0


def _write(out: Path, result: Evaluation) -> None:
    rows = "".join(json.dumps(prediction_row(trace), ensure_ascii=False) + "\n" for trace in result.traces)
    try:
        out.write_text(rows, "utf-8")
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from None


def _body(result: Evaluation, split: str, metric: Any) -> dict[str, Any]:
    usage = asdict(result.usage)
    usage["seconds"] = round(usage["seconds"], 3)
    return {
        "split": split,
        "metric": metric if isinstance(metric, str) else metric.python,
        "score": result.score,
        "interval": list(result.interval),
        "n": result.n,
        "failed": result.failed,
        "outside_choices": result.outside,
        **usage,
        "confusion": result.confusion(),
    }


def _show(result: Evaluation, name: str, split: str) -> None:
    usage = result.usage
    terminal.say(f"{name} {split}  {terminal.with_interval(result.score, result.interval)}  n={result.n}")
    speed = usage.computed_tokens / usage.seconds if usage.seconds else 0.0
    terminal.say(
        f"{usage.calls} calls, {usage.cached_calls} from the store; "
        f"{usage.prompt_tokens:,} prompt tokens asked, {usage.computed_tokens:,} computed, "
        f"{usage.generated_tokens:,} written in {terminal.duration(usage.seconds)} ({speed:.0f} tokens/s)"
    )
    if result.failed:
        reason = next(trace.prediction.error for trace in result.traces if trace.prediction.error)
        terminal.say(f"{result.failed} failed and score 0, the first with: {reason}")
    if result.outside:
        terminal.say(f"{result.outside} rows have a label that is no choice and score 0")
    confusion = result.confusion()
    if confusion:
        terminal.confusion_table(confusion)
