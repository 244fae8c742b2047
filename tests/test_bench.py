"""The speed table: its figures from rows made by hand, its resuming, and the workloads it measures."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contenders
import pytest
import workloads
from bench import Cell, Ledger, fill, limit_arguments, summarize, table, turns
from workloads import FULL, QUICK, Sizes, Workload

from engine.inference.models import find_model
from engine.records import Generate, Plain, Score

ROOT = Path(__file__).parents[1]
DATA = workloads.DATA
TINY = Sizes(
    score_instructions=1,
    score_questions=2,
    sum_instructions=1,
    sum_questions=1,
    unshared_rows=1,
    many_label_rows=1,
    candidates=1,
    raced_rows=2,
    optimizer_calls=1,
)
needs_data = pytest.mark.skipif(
    bool(workloads.missing_sets(DATA)), reason=f"the public task sets are not in {DATA.resolve()}"
)


def ours(seconds: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "inside_s": 0.9 * seconds, "computed_tokens": 500, "prompt_tokens": 2000, **more}


def three_repetitions() -> dict[Cell, dict[str, Any]]:
    rows: dict[Cell, dict[str, Any]] = {}
    for number, (loop_s, as_is_s, tuned_s) in enumerate([(30.0, 10.0, 5.0), (80.0, 20.0, 5.0), (40.0, 20.0, 4.0)]):
        rows[Cell("W1", "loop", number)] = {"seconds": loop_s}
        rows[Cell("W1", "as_is", number)] = ours(as_is_s)
        rows[Cell("W1", "tuned", number)] = ours(tuned_s)
        rows[Cell("W1", "limit", number)] = {"seconds": 8.0}
    return rows


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def test_a_figure_is_the_median_of_ratios_within_a_repetition() -> None:
    figures = summarize(three_repetitions(), ["W1"])["W1"]
    assert figures["as_is"] == 3.0  # of 3, 4 and 2; the ratio of median seconds would be 2
    assert figures["tuned"] == 10.0
    assert figures["limit_fraction"] == 0.4
    assert figures["outside_fraction"] == pytest.approx(0.1)
    assert figures["computed_fraction"] == 0.25
    assert figures["loop_seconds"] == 40.0
    assert figures["repetitions"] == 3


def test_what_was_not_measured_is_none_and_the_shape_stays() -> None:
    full = summarize(three_repetitions(), ["W1", "W2"])
    assert full["W1"]["server"] is None
    assert full["W1"]["tuned_limit_fraction"] is None
    assert full["W1"].keys() == full["W2"].keys()
    assert full["W2"]["repetitions"] == 0
    assert {value for name, value in full["W2"].items() if name != "repetitions"} == {None}
    assert json.loads(json.dumps(full, allow_nan=False)) == full


def test_a_repetition_that_lacks_one_side_gives_no_ratio() -> None:
    rows = three_repetitions()
    del rows[Cell("W1", "loop", 2)]
    figures = summarize(rows, ["W1"])["W1"]
    assert figures["as_is"] == 3.5
    assert figures["repetitions"] == 2


def test_the_table_has_a_line_a_workload_and_says_when_it_is_rough() -> None:
    shown = table(summarize(three_repetitions(), ["W1"]))
    assert "| W1 | 3.00× | 10.00× | – | – | 0.40 | – | 0.10 | 0.25 | 40.0 | 20.0 | 3 |" in shown.splitlines()
    assert "Rough" not in shown
    assert "Rough" in table(summarize(three_repetitions(), ["W1", "W2"]))


# ── order and resuming ───────────────────────────────────────────────────────────────────────────


def test_contenders_take_turns_and_a_limit_follows_what_it_limits() -> None:
    cells = turns(["W1", "W2"], 3)
    assert len(set(cells)) == len(cells) == 2 * (5 * 3 + 2)
    assert {cell.contender for cell in cells if cell.repetition} == {"as_is", "limit", "loop", "tuned", "tuned_limit"}
    for cell in cells:
        limited = {"limit": "as_is", "tuned_limit": "tuned"}.get(cell.contender)
        if limited:
            assert cells[cells.index(cell) - 1] == cell._replace(contender=limited)
    firsts = [next(cell.contender for cell in cells if cell.repetition == number) for number in range(3)]
    assert len(set(firsts)) == 3


class Measurer:
    """Measures by taking note. It interrupts before measurement number `until`; `absent` contenders are not there."""

    def __init__(self, until: int | None = None, absent: Sequence[str] = ()) -> None:
        self.asked: list[Cell] = []
        self._until, self._absent = until, absent

    def __call__(self, cell: Cell, rows: object) -> dict[str, Any]:
        if len(self.asked) == self._until:
            raise KeyboardInterrupt
        self.asked.append(cell)
        return {"absent": "not installed"} if cell.contender in self._absent else {"seconds": 1.0}


def test_an_interrupted_run_keeps_its_rows_and_the_next_measures_only_the_rest(tmp_path: Path) -> None:
    cells, path = turns(["W1"], 2), tmp_path / "new" / "bench.jsonl"
    first, second = Measurer(until=5), Measurer()
    with pytest.raises(KeyboardInterrupt):
        fill(cells, Ledger(path, {"W1": "a"}), first, 1.0)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"setting": "a", "workl')  # a kill in the middle of a row
    fill(cells, Ledger(path, {"W1": "a"}), second, 1.0)
    assert first.asked + second.asked == cells
    assert list(Ledger(path, {"W1": "a"}).rows) == cells


def test_rows_of_another_setting_do_not_count(tmp_path: Path) -> None:
    cells, path = turns(["W1"], 1), tmp_path / "bench.jsonl"
    fill(cells, Ledger(path, {"W1": "a"}), Measurer(), 1.0)
    assert Ledger(path, {"W1": "b"}).rows == {}
    assert len(Ledger(path, {"W1": "a"}).rows) == len(cells)


def test_an_absent_contender_is_asked_once_and_its_limit_never(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measurer, ledger = Measurer(absent=["tuned", "server"]), Ledger(tmp_path / "bench.jsonl", {"W1": "a", "W2": "a"})
    fill(turns(["W1", "W2"], 2), ledger, measurer, 1.0)
    asked = [cell.contender for cell in measurer.asked]
    assert asked.count("tuned") == asked.count("server") == 1
    assert "tuned_limit" not in asked
    assert {cell.contender for cell in ledger.rows} == {"as_is", "limit", "loop", "deterministic"}
    assert "tuned is left out: not installed" in capsys.readouterr().err


def test_a_limit_is_asked_for_the_rows_and_the_file_of_what_it_limits() -> None:
    rows = {
        Cell("W1", "as_is", 0): ours(1.0, outputs=30, model_path="a.gguf"),
        Cell("W1", "tuned", 0): ours(1.0, outputs=30, model_path="b.gguf"),
    }
    asked = limit_arguments(Cell("W1", "limit", 0), rows, 64)
    assert asked == ["--file", "a.gguf", "--computed", "500", "--outputs", "30", "--cap", "64"]
    rows[Cell("W1", "limit", 0)] = {"seconds": 1.0, "file": "a.gguf", "shape": {"rows": 256}}
    assert limit_arguments(Cell("W1", "tuned_limit", 0), rows, 64) == ["--file", "b.gguf", *asked[2:]]
    rows[Cell("W1", "as_is", 1)] = rows[Cell("W1", "as_is", 0)]
    assert limit_arguments(Cell("W1", "limit", 1), rows, 64) == [*asked, "--shape", '{"rows": 256}']


def test_without_the_task_sets_it_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert "--data" in done.stderr


# ── workloads ────────────────────────────────────────────────────────────────────────────────────


def built(name: str, sizes: Sizes = FULL) -> Workload:
    return workloads.build(name, DATA, sizes)


@needs_data
@pytest.mark.parametrize(
    ("name", "stages", "kind"),
    [
        ("W1", [800], Score),
        ("W2", [256], Generate),
        ("W3", [100], Score),
        ("W4", [60], Score),
        ("W5", [12, 150, 150, 150, 150], None),
    ],
)
def test_a_workload_asks_as_many_requests_as_it_says(name: str, stages: list[int], kind: type | None) -> None:
    workload = built(name)
    assert workload.name == name
    assert [len(stage) for stage in workload.stages] == stages
    assert all(isinstance(request.prompt, Plain) for request in workload.requests)
    assert kind is None or {type(request) for request in workload.requests} == {kind}
    assert len(set(workload.requests)) == len(workload.requests)


@needs_data
@pytest.mark.parametrize("name", workloads.BUILDERS)
def test_a_workload_is_the_same_each_time_and_quick_is_another_and_smaller(name: str) -> None:
    full, quick = built(name), built(name, QUICK)
    assert full == built(name)
    assert full.fingerprint != quick.fingerprint
    assert len(quick.requests) * 5 < len(full.requests)


@needs_data
def test_the_label_sets_are_those_of_the_task_sets() -> None:
    for name, count in {"W1": 6, "W3": 4, "W4": 77}.items():
        assert {len(request.continuations) for request in built(name).requests if isinstance(request, Score)} == {count}


@needs_data
def test_rows_without_shared_demonstrations_share_the_instruction_alone() -> None:
    beginnings = {request.prompt.text.split("\n\n")[1] for request in built("W3").requests}  # type: ignore[union-attr]
    assert len(beginnings) == 100


@needs_data
def test_a_round_asks_the_optimizer_for_replies_of_mixed_lengths() -> None:
    advice = built("W5").stages[0]
    caps = [request.max_tokens for request in advice if isinstance(request, Generate)]
    assert {request.role for request in advice} == {"optimizer"}
    assert (min(caps), max(caps), len(set(caps))) == (24, 160, 12)
    assert caps != sorted(caps)


# ── contenders ───────────────────────────────────────────────────────────────────────────────────


@needs_data
@pytest.mark.model
@pytest.mark.slow
def test_a_tiny_workload_goes_through_every_contender_that_is_always_there(tmp_path: Path) -> None:
    workload, path = built("W1", TINY), find_model("smollm2-135m", ROOT).path
    as_is = contenders.measure_localgrad(workload, "smollm2-135m", "as_is", tmp_path)
    assert list(tmp_path.iterdir()) == []  # the store is gone
    loop = contenders.measure_loop(workload, path)
    shape = contenders.Shape(rows=64, sequences=2)
    limit = contenders.measure_limit(Path(as_is["model_path"]), as_is["computed_tokens"], as_is["outputs"], shape, 64)
    assert as_is["prompt_tokens"] == loop["prompt_tokens"]  # the same prompts, tokenized by two different hands
    assert 0 < as_is["computed_tokens"] < as_is["prompt_tokens"]
    assert as_is["outputs"] == 2  # every label is one token
    assert limit["seconds"] * limit["tokens_per_s"] == pytest.approx(as_is["computed_tokens"])
    rows = {
        Cell("W1", "as_is", 0): as_is,
        Cell("W1", "loop", 0): loop,
        Cell("W1", "limit", 0): limit,
    }
    figures = summarize(rows, ["W1"])["W1"]
    assert all(figures[name] for name in ("as_is", "limit_fraction", "computed_fraction"))
