"""The commands, called as a person calls them: what they print, how they exit, and one line for every mistake."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_cli import Cli, complaint

from engine.store.store import Store

ROOT = Path(__file__).parents[1]
COLOURS = ("amber", "coral", "indigo", "teal")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def localgrad(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, **settings)


def rows(count: int, what: str) -> list[dict[str, str]]:
    return [{"text": f"The {what} {n} is {COLOURS[n % 4]}", "colour": COLOURS[n % 4]} for n in range(count)]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task on the scripted model that starts with a bias for the wrong colour."""
    write(tmp_path / "train.jsonl", rows(120, "lamp"))
    write(tmp_path / "test.jsonl", rows(24, "door"))
    return declare(tmp_path)


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def declare(folder: Path, **changes: Any) -> Path:
    """A task file; `changes` replace its top-level keys."""
    body = {
        "version": 1,
        "name": "colours",
        "model": "scripted",
        "data": {
            "train": {"path": "train.jsonl"},
            "dev": {"from": "train", "limit": 40},
            "test": {"path": "test.jsonl"},
            "inputs": {"text": "text"},
            "target": "colour",
        },
        "program": {
            "colour": {
                "layer": "predict",
                "inputs": ["text"],
                "instruction": "Name the colour.",
                "choices": list(COLOURS),
                "bias": {"amber": 6.0, "coral": 0.0, "indigo": 0.0, "teal": 0.0},
            }
        },
        "optimize": {"proposers": ["bias"], "budget": "400calls"},
    } | changes
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return path


def node(**settings: Any) -> dict[str, Any]:
    """A program of one predict node."""
    return {"colour": {"layer": "predict", "inputs": ["text"], "instruction": "Name the colour.", **settings}}


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


def test_init_writes_a_task_that_runs_and_never_overwrites(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    assert cli("init", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["task.yaml", "test.jsonl", "train.jsonl"]
    done = cli("eval", folder / "task.yaml", "--model", "scripted", "--limit", "5", "--json")
    assert (done.code, done.json["n"]) == (0, 5)
    (folder / "task.yaml").write_text("mine", encoding="utf-8")
    assert "already there" in complaint(cli("init", folder), 2)
    assert (folder / "task.yaml").read_text("utf-8") == "mine"
    assert "is a file" in complaint(cli("init", folder / "task.yaml"), 2)


def test_init_tells_what_it_wrote(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", tmp_path / "demo", "--json")
    assert done.json["task"] == str(tmp_path / "demo" / "task.yaml")
    assert all(Path(path).is_file() for path in done.json["files"])


def test_doctor_looks_at_everything_the_machine_needs(cli: Cli) -> None:
    done = cli("doctor", "--json")
    findings = {finding["name"]: finding for finding in done.json["findings"]}
    assert set(findings) >= {"python", "machine", "llama.cpp", "model", "store", "retrieval"}
    healthy = all(finding["ok"] for finding in findings.values() if finding["needed"])
    assert (done.json["ok"], done.code) == (healthy, 0 if healthy else 1)
    assert findings["store"]["ok"]
    assert len(cli("doctor").out.splitlines()) == len(findings)


def test_models_lists_those_known_by_name(cli: Cli) -> None:
    done = cli("models", "--json")
    known = {model["name"]: model for model in done.json["models"]}
    assert known["smollm2-135m"]["role"] == "generate"
    assert known["smollm2-135m"]["licence"] == "Apache-2.0"
    assert Path(done.json["user_manifest"]).name == "models.toml"
    assert "smollm2-135m" in cli("models").out


def test_eval_prints_its_result_as_json(cli: Cli, task: Path) -> None:
    done = cli("eval", task, "--json")
    expected = {
        "score", "interval", "n", "calls", "cached_calls", "prompt_tokens", "computed_tokens", "generated_tokens",
        "seconds",
    }  # fmt: skip
    assert done.code == 0
    assert expected <= set(done.json)
    assert (done.json["n"], done.json["calls"], done.json["cached_calls"]) == (40, 40, 0)
    assert done.json["computed_tokens"] == done.json["prompt_tokens"] > 0
    low, high = done.json["interval"]
    assert 0 <= low <= done.json["score"] <= high <= 1


def test_a_second_eval_computes_nothing(cli: Cli, task: Path) -> None:
    first, second = cli("eval", task, "--json").json, cli("eval", task, "--json").json
    assert (second["calls"], second["cached_calls"], second["computed_tokens"]) == (40, 40, 0)
    assert first["computed_tokens"] > 0
    for key in ("score", "interval", "n", "prompt_tokens", "generated_tokens", "confusion"):
        assert first[key] == second[key]


def test_eval_reads_other_splits_fewer_rows_and_other_stores(cli: Cli, task: Path, tmp_path: Path) -> None:
    store = tmp_path / "elsewhere" / "my.db"
    done = cli("eval", task, "--split", "test", "--limit", "7", "--store", store, "--json")
    assert (done.json["n"], done.json["split"]) == (7, "test")
    assert store.is_file()
    assert not (tmp_path / ".localgrad").exists()


def test_eval_writes_its_predictions_to_a_file(cli: Cli, task: Path, tmp_path: Path) -> None:
    done = cli("eval", task, "--out", tmp_path / "rows.jsonl", "--json")
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert len(written) == 40
    assert sum(row["score"] for row in written) / 40 == pytest.approx(done.json["score"])
    assert set(written[0]) >= {"id", "inputs", "accepted", "prediction", "score", "error"}


def test_eval_shows_score_cost_and_confusion_to_a_person(cli: Cli, task: Path) -> None:
    out = cli("eval", task).out
    assert "n=40" in out
    assert "40 calls, 0 from the store" in out
    assert "expected" in out
    assert all(colour in out for colour in COLOURS)


def test_the_quality_gate_exits_with_3_and_still_prints_the_result(cli: Cli, task: Path) -> None:
    done = cli("eval", task, "--fail-under", "0.99", "--json")
    assert "under the gate of 0.99" in complaint(done, 3)
    assert done.json["score"] < 0.99
    assert cli("eval", task, "--fail-under", "0").code == 0


def test_optimize_improves_saves_and_reports(cli: Cli, task: Path) -> None:
    done = cli("optimize", task, "--json")
    body = done.json
    assert done.code == 0
    assert set(body) >= {"run", "baseline", "best", "proposals", "accepted", "seconds", "program"}
    for name in ("baseline", "best"):
        assert set(body[name]) >= {"dev", "test"}
    assert body["accepted"] >= 1
    assert body["best"]["dev"] > body["baseline"]["dev"]
    assert body["best"]["test"] > body["baseline"]["test"]
    assert Path(body["program"]).is_file()
    again = cli("eval", task, "--program", body["program"], "--split", "test", "--json").json
    assert again["score"] == body["best"]["test"]
    assert again["cached_calls"] == again["calls"] == 24


def test_optimize_shows_a_table_and_how_to_go_on(cli: Cli, task: Path) -> None:
    done = cli("optimize", task)
    assert "baseline" in done.out
    assert "gain on test +" in done.out
    program = next(line.split()[1] for line in done.out.splitlines() if line.startswith("saved"))
    assert "accepted" in done.err
    answer = cli("run", program, "-i", "text=The lamp is teal")
    assert (answer.code, answer.out) == (0, "teal\n")


def test_optimize_keeps_the_baseline_where_nothing_beats_it(cli: Cli, task: Path, tmp_path: Path) -> None:
    declare(tmp_path, program=node(choices="auto"), optimize={"proposers": ["settings"], "budget": "200calls"})
    done = cli("optimize", task, "--json").json
    assert done["accepted"] == 0
    assert done["best"]["fingerprint"] == done["baseline"]["fingerprint"]
    diff = cli("diff", "--task", task)
    assert "the baseline was kept" in diff.out


def test_flags_override_the_task(cli: Cli, task: Path) -> None:
    done = cli("optimize", task, "--seed", "7", "--budget", "150calls", "--proposers", "settings, bias", "--json")
    runs = cli("runs", task, "--json").json["runs"]
    assert done.json["seed"] == 7
    assert runs[0]["settings"]["budget"] == "150calls"
    assert runs[0]["settings"]["proposers"] == ["settings", "bias"]


def test_nearest_demonstrations_need_an_embedder(
    cli: Cli, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "config" / "localgrad" / "models.toml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('[models.minilm-l6-v2]\nfile = "/nowhere/model.safetensors"\nrole = "embed"\n', "utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    asked = cli("optimize", task, "--budget", "150calls", "--proposers", "nearest_demos")
    assert "nearest_demos: model 'minilm-l6-v2' is not on this machine" in complaint(asked, 5)
    played = cli("optimize", task, "--budget", "2000calls", "--proposers", "all", "--json").json["proposers"]
    assert played
    assert "nearest_demos" not in {play["name"] for play in played}, "of all there are it is left out"


def test_runs_are_listed_newest_first(cli: Cli, task: Path) -> None:
    names = [cli("optimize", task, "--seed", str(seed), "--json").json["run"] for seed in (1, 2)]
    listed = cli("runs", task, "--json").json["runs"]
    assert [row["run"] for row in listed] == names[::-1]
    assert {row["status"] for row in listed} == {"done"}
    shown = cli("runs", task).out
    assert all(name in shown for name in names)


def test_runs_and_executions_of_a_task_are_its_own(cli: Cli, task: Path, tmp_path: Path) -> None:
    mine = cli("optimize", task, "--budget", "150calls", "--json").json
    assert cli("eval", task).code == cli("run", task, "-i", "text=The lamp is teal").code == 0
    assert cli("run", mine["program"], "-i", "text=The lamp is red").code == 0
    (tmp_path / "other.yaml").write_text(task.read_text("utf-8").replace("name: ", "name: not-"), "utf-8")
    assert cli("eval", tmp_path / "other.yaml").code == 0
    other = tmp_path / "other.yaml"
    assert [run["run"] for run in cli("runs", task, "--json").json["runs"]] == [mine["run"]]
    assert cli("runs", other, "--json").json["runs"] == []
    assert "no runs yet of task not-" in cli("runs", other).out
    assert [run["run"] for run in cli("runs", other, "--all", "--json").json["runs"]] == [mine["run"]]

    def listed(*arguments: Any) -> list[str]:
        return [row["run"] for row in cli("trace", "list", "--limit", "9999", "--json", *arguments).json["traces"]]

    name = mine["task"]
    fingerprint = mine["baseline"]["fingerprint"]
    assert {*listed(task)} == {mine["run"], f"eval-{name}-{fingerprint}", f"run-{name}"}
    assert listed(task) == listed(mine["program"]), "a saved program goes by the name of its task"
    assert {*listed(other)} == {f"eval-not-{name}-{fingerprint}"}
    assert len(listed(task)) + len(listed(other)) == len(listed(task, "--all"))
    every = cli("trace", "list", task, "--failures", "--json").json
    assert every["failed"] >= sum(cluster["count"] for cluster in every["failures"]) > 0


def leave_unfinished(task: Path, name: str, status: str) -> None:
    """Make a run look as it would had its process died."""
    with Store(task.parent / ".localgrad" / "store.db") as store:
        run = next(run for run in store.runs() if run.id == name)
        store.put_run(replace(run, status=status, report={}))


def test_a_killed_run_is_listed_as_interrupted(cli: Cli, task: Path) -> None:
    name = cli("optimize", task, "--json").json["run"]
    leave_unfinished(task, name, "running")
    assert [(run["run"], run["status"]) for run in cli("runs", task, "--json").json["runs"]] == [(name, "interrupted")]


def test_a_run_can_be_resumed_with_another_budget(cli: Cli, task: Path) -> None:
    name = cli("optimize", task, "--budget", "150calls", "--json").json["run"]
    leave_unfinished(task, name, "interrupted")
    resumed = cli("optimize", task, "--resume", "--budget", "900calls", "--json").json
    assert (resumed["run"], resumed["resumed"]) == (name, True)
    assert cli("runs", task, "--json").json["runs"][0]["settings"]["budget"] == "900calls"
    assert resumed["calls"] > 150


def test_runs_finds_no_store_where_there_is_none(cli: Cli, task: Path) -> None:
    assert "no store here yet" in complaint(cli("runs", task), 2)


def test_runs_names_the_store_that_holds_none(cli: Cli, task: Path, tmp_path: Path) -> None:
    assert cli("eval", task).code == 0
    with contextlib.chdir(tmp_path):
        assert cli("runs", task).out.startswith(".localgrad/store.db: no runs yet")


def test_diff_shows_what_a_run_changed(cli: Cli, task: Path) -> None:
    body = cli("optimize", task, "--json").json
    shown = cli("diff", body["run"], "--task", task)
    assert shown.code == 0
    assert "colour.bias (nats)" in shown.out
    assert "+6.00 →" in shown.out
    folder = Path(body["program"]).parent
    assert cli("diff", folder).out == shown.out == cli("diff", folder / "program.yaml").out
    assert cli("diff", "--task", task).out == cli("diff", task).out == shown.out
    changes = cli("diff", folder, "--json").json["changes"]
    assert set(changes["colour.bias"]["best"]) == set(COLOURS)


def test_the_front_of_a_run_is_saved_to_run_and_compare(cli: Cli, task: Path) -> None:
    body = cli("optimize", task, "--json").json
    front = body["front"]
    assert len({row["fingerprint"] for row in front}) == len(front) > 0
    assert all(row["tokens"] > 0 and row["seconds"] >= 0 for row in front)
    assert max(row["dev"] for row in front) >= body["best"]["dev"]
    folder = Path(body["program"]).parent
    assert sorted(row["program"] for row in front) == sorted(map(str, folder.glob("candidate-*.yaml")))
    best = next(row for row in front if row["fingerprint"] == body["best"]["fingerprint"])
    assert Path(best["program"]).read_bytes() == Path(body["program"]).read_bytes()
    assert cli("run", best["program"], "-i", "text=The lamp is teal").out == "teal\n"
    same = cli("diff", folder, "--json").json["changes"]
    other = cli("diff", best["program"], "--json").json["changes"]
    name = Path(best["program"]).stem
    assert {key: change[name] for key, change in other.items()} == {key: change["best"] for key, change in same.items()}


def test_diff_names_the_runs_it_knows(cli: Cli, task: Path) -> None:
    name = cli("optimize", task, "--json").json["run"]
    assert name in complaint(cli("diff", "another", "--task", task), 2)


@pytest.mark.parametrize("place", ["/", "/tmp"])
def test_diff_of_a_folder_that_is_no_runs_is_refused(cli: Cli, place: str) -> None:
    assert "is not a run's folder" in complaint(cli("diff", place), 2)


def test_run_answers_one_example(cli: Cli, task: Path) -> None:
    done = cli("run", task, "-i", "text=The lamp is teal", "--json")
    assert done.code == 0
    assert set(done.json) == {"inputs", "answer", "outputs", "probabilities", "error"}
    assert done.json["inputs"] == {"text": "The lamp is teal"}
    assert done.json["answer"] in COLOURS
    assert sum(done.json["probabilities"].values()) == pytest.approx(1)
    assert cli("run", task, "-i", "text=The lamp is teal").out == done.json["answer"] + "\n"


def test_run_answers_a_file_of_rows_in_order(cli: Cli, task: Path, tmp_path: Path) -> None:
    done = cli("run", task, tmp_path / "test.jsonl", "--json")
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [answer["inputs"]["text"] for answer in answers] == [row["text"] for row in rows(24, "door")]
    assert cli("run", task, tmp_path / "test.jsonl").out.split() == [answer["answer"] for answer in answers]


def test_run_reads_lines_and_json_from_standard_input(cli: Cli, task: Path) -> None:
    given = 'The lamp is teal\n\n{"text": "The lamp is coral"}\n'
    done = localgrad("run", task, "-", input=given)
    assert done.returncode == 0
    expected = [cli("run", task, "-i", f"text=The lamp is {colour}").out for colour in ("teal", "coral")]
    assert done.stdout == "".join(expected)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"", "-: no rows"),
        (b"fine\nbad \xff\n", "-:2: not UTF-8"),
        (b'{"text": 1\n', "-:1: not JSON"),
        (b'{"text": "\\ud800"}\n', "-:1: an escape stands for half a character"),
        (b'{"other": "x"}\n', "-:1: no field 'text'"),
    ],
)
def test_bad_standard_input_is_refused_in_one_line(task: Path, given: bytes, says: str) -> None:
    command = [sys.executable, "-m", "engine", "run", str(task), "-"]
    done = subprocess.run(command, input=given, capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"localgrad: {says}")
    assert done.stderr.count(b"\n") == 1


def test_an_argument_that_is_no_text_is_refused_in_one_line(task: Path) -> None:
    command = [sys.executable.encode(), b"-m", b"engine", b"run", str(task).encode(), b"-i", b"text=bad \xff"]
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.startswith(b"localgrad: -i: input 'text'")
    assert done.stderr.count(b"\n") == 1


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────

MISTAKES: dict[str, tuple[int, list[str], str]] = {
    "no task file": (2, ["eval", "absent.yaml"], "absent.yaml: no such file"),
    "a folder for a task": (2, ["eval", "."], "is a folder; give task.yaml"),
    "no such command": (2, ["optimise"], "no command 'optimise': did you mean 'optimize'?"),
    "no such option": (2, ["eval", "task.yaml", "--splits", "dev"], "No such option"),
    "no argument": (2, ["eval"], "Missing argument"),
    "no such split": (2, ["eval", "task.yaml", "--split", "holdout"], "holdout"),
    "limit of nothing": (2, ["eval", "task.yaml", "--limit", "0"], "--limit"),
    "gate above one": (2, ["eval", "task.yaml", "--fail-under", "2"], "--fail-under"),
    "unknown model": (5, ["eval", "task.yaml", "--model", "gpt-9"], "unknown model 'gpt-9' (give a name"),
    "absent gguf": (5, ["eval", "task.yaml", "--model", "absent.gguf"], "absent.gguf: no such model file"),
    "model not in the cache": (5, ["eval", "task.yaml", "--model", "hf:nobody/nothing:Q4_0"], "downloads nothing"),
    "malformed hf name": (1, ["eval", "task.yaml", "--model", "hf:nobody"], "hf:user/repo:QUANT"),
    "gguf that is text": (1, ["eval", "task.yaml", "--model", "text.gguf"], "not a GGUF file"),
    "gguf that is noise": (1, ["eval", "task.yaml", "--model", "noise.gguf"], "damaged GGUF file"),
    "absent program": (2, ["eval", "task.yaml", "--program", "absent.yaml"], "absent.yaml: no such file"),
    "a task as program": (1, ["eval", "task.yaml", "--program", "task.yaml"], "task.yaml:"),
    "out is a folder": (2, ["eval", "task.yaml", "--out", "."], "--out"),
    "out in no folder": (2, ["eval", "task.yaml", "--out", "absent/rows.jsonl"], "--out"),
    "store is a folder": (1, ["eval", "task.yaml", "--store", "."], "choose another --store"),
    "store is no store": (1, ["eval", "task.yaml", "--store", "train.jsonl"], "choose another --store"),
    "budget without meaning": (2, ["optimize", "task.yaml", "--budget", "3parsecs"], "--budget '3parsecs'"),
    "budget without a unit": (2, ["optimize", "task.yaml", "--budget", "30"], "write it like 30s"),
    "budget of nothing": (2, ["optimize", "task.yaml", "--budget", "0calls"], "--budget '0calls'"),
    "negative seed": (2, ["optimize", "task.yaml", "--seed", "-1"], "--seed"),
    "huge seed": (2, ["optimize", "task.yaml", "--seed", "99999999999999999999"], "--seed"),
    "unknown proposer": (2, ["optimize", "task.yaml", "--proposers", "bais"], "did you mean 'bias'"),
    "proposer named twice": (2, ["optimize", "task.yaml", "--proposers", "bias,bias"], "named twice"),
    "no program": (2, ["run", "absent.yaml"], "absent.yaml: no such file"),
    "no input": (2, ["run", "task.yaml"], "give either -i"),
    "inputs and rows": (2, ["run", "task.yaml", "test.jsonl", "-i", "text=x"], "give either -i"),
    "unknown input": (2, ["run", "task.yaml", "-i", "txt=x"], "did you mean 'text'"),
    "input without name": (2, ["run", "task.yaml", "-i", "hello"], "NAME=TEXT"),
    "input given twice": (2, ["run", "task.yaml", "-i", "text=a", "-i", "text=b"], "given twice"),
    "text in place of a file": (1, ["run", "task.yaml", "my parcel is late " * 20], "rows come as"),
    "absent rows": (2, ["run", "task.yaml", "absent.jsonl"], "absent.jsonl: no such file"),
    "rows without the field": (1, ["run", "task.yaml", "other.jsonl"], "other.jsonl:1: no field 'text'"),
    "diff of no run": (2, ["diff", "nothing", "--task", "task.yaml"], "no run 'nothing'"),
    "diff before any run": (
        2,
        ["diff", "--task", "task.yaml"],
        "no finished run of task.yaml yet; localgrad optimize TASK",
    ),
    "init over a task": (2, ["init", "."], "already there"),
    "init without a folder": (2, ["init"], "name a folder for the new task, as in: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_the_store_as_it_was(cli: Cli, task: Path, tmp_path: Path, name: str) -> None:
    assert cli("eval", task).code == 0
    (tmp_path / "text.gguf").write_text("This is no model.", encoding="utf-8")
    (tmp_path / "noise.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 8)
    write(tmp_path / "other.jsonl", [{"question": "x"}])
    code, arguments, says = MISTAKES[name]
    with contextlib.chdir(tmp_path):
        done = cli(*arguments)
    assert says in complaint(done, code)
    assert done.out == ""
    assert cli("eval", task, "--json").json["computed_tokens"] == 0


BAD_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"metrics": "exact_match"}, "did you mean 'metric'"),
    "unknown nested key": ({"runtime": {"thread": 2}}, "did you mean 'threads'"),
    "unknown metric": ({"metric": "exact"}, "unknown metric 'exact'"),
    "unknown proposer": ({"optimize": {"proposers": ["demo"]}}, "did you mean 'demos'"),
    "bad budget": ({"optimize": {"budget": "soon"}}, "budget 'soon'"),
    "unknown layer": ({"program": {"colour": {"layer": "predicts", "inputs": ["text"]}}}, "unknown layer"),
    "unread input": ({"program": node(inputs=["texts"])}, "reads 'texts'"),
    "label not in choices": ({"program": node(choices=["amber", "coral"])}, "is not in choices"),
    "wrong version": ({"version": 9}, "version"),
}


@pytest.mark.parametrize("command", ["eval", "optimize"])
@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_mistake_in_a_task_is_named_by_its_line(
    cli: Cli, task: Path, tmp_path: Path, name: str, command: str
) -> None:
    changes, says = BAD_TASKS[name]
    declare(tmp_path, **changes)
    if name == "unknown proposer" and command == "eval":
        assert cli(command, task).code == 0, "what eval does not need it does not refuse"
        return
    line = complaint(cli(command, task), 1)
    assert says in line
    place = line.removeprefix("localgrad: ").split(": ")[0]
    file, _, number = place.rpartition(":")
    assert Path(file).is_file()
    assert int(number) >= 1
    assert not (tmp_path / ".localgrad").exists(), "nothing is opened before the task is read"


@pytest.mark.parametrize("text", ["version: [1", "- a list", "", "version: 1\nversion: 1\n", "\x00", "a: *b"])
def test_a_task_that_is_no_yaml_mapping_is_refused(cli: Cli, task: Path, text: str) -> None:
    task.write_text(text, encoding="utf-8")
    assert f"{task}:" in complaint(cli("eval", task), 1)


def test_an_empty_split_is_refused(cli: Cli, task: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("\n\n", encoding="utf-8")
    assert "test is empty" in complaint(cli("eval", task), 1)
    (tmp_path / "train.jsonl").write_text("", encoding="utf-8")
    assert "train is empty" in complaint(cli("eval", task), 1)


def test_a_split_that_the_task_does_not_have_is_refused(cli: Cli, task: Path, tmp_path: Path) -> None:
    train = {"train": {"path": "train.jsonl"}, "inputs": {"text": "text"}, "target": "colour"}
    declare(tmp_path, data=train)
    assert "has no test split" in complaint(cli("eval", task, "--split", "test"), 2)


def test_an_absent_file_of_rows_is_named_with_the_line_that_asks_for_it(cli: Cli, task: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").unlink()
    line = 1 + next(n for n, text in enumerate(task.read_text("utf-8").splitlines()) if "test.jsonl" in text)
    assert f"task.yaml:{line}: {tmp_path / 'test.jsonl'}: no such file" in complaint(cli("eval", task), 2)


def test_a_blank_label_is_named_by_its_row(cli: Cli, task: Path, tmp_path: Path) -> None:
    declare(tmp_path, program=node(choices="auto"))
    write(tmp_path / "train.jsonl", [*rows(60, "lamp"), {"text": "The lamp is off", "colour": ""}, *rows(60, "door")])
    said = complaint(cli("eval", task), 1)
    assert f"{tmp_path / 'train.jsonl'}:61: 'colour' is blank here" in said


def test_a_bad_row_is_named_by_file_and_line(cli: Cli, task: Path, tmp_path: Path) -> None:
    good = json.dumps(rows(1, "lamp")[0])
    (tmp_path / "test.jsonl").write_text(f"{good}\n{{broken\n", encoding="utf-8")
    assert f"{tmp_path / 'test.jsonl'}:2: not JSON" in complaint(cli("eval", task), 1)


def test_a_label_that_train_does_not_have_scores_0_and_is_counted(cli: Cli, task: Path, tmp_path: Path) -> None:
    declare(tmp_path, program=node(choices="auto"))
    strange = [{"text": "The door is mauve", "colour": "mauve"}]
    write(tmp_path / "test.jsonl", rows(3, "door") + strange)
    done = cli("eval", task, "--split", "test", "--out", tmp_path / "rows.jsonl", "--json")
    assert (done.code, done.json["n"], done.json["outside_choices"]) == (0, 4, 1)
    last = json.loads((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()[-1])
    assert (last["accepted"], last["score"], last["error"]) == (["mauve"], 0.0, None)
    assert "1 rows have a label that is no choice" in cli("eval", task, "--split", "test").out


def test_a_prompt_longer_than_the_context_is_one_failed_row(cli: Cli, task: Path, tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [*rows(3, "door"), {"text": "word " * 9000, "colour": "teal"}])
    done = cli("eval", task, "--split", "test", "--json", "--out", tmp_path / "rows.jsonl")
    assert (done.code, done.json["n"], done.json["failed"], done.json["failed_calls"]) == (0, 4, 1, 1)
    last = json.loads((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()[-1])
    assert "the context holds 8,192" in last["error"]
    assert last["score"] == 0.0
    assert "1 failed and score 0" in cli("eval", task, "--split", "test").out
    with Store(tmp_path / ".localgrad" / "store.db") as store:
        assert store.calls_paid()[0] == 4, "the failed call is recorded too"


def test_where_no_row_fits_the_context_it_is_an_error(cli: Cli, task: Path, tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [{"text": "word " * 9000, "colour": "teal"}] * 2)
    done = cli("eval", task, "--split", "test", "--json")
    assert "not one of 2 examples could be answered" in complaint(done, 1)
    assert done.out == ""


def test_run_prints_the_rows_that_fit_and_complains_of_the_others(cli: Cli, task: Path, tmp_path: Path) -> None:
    write(tmp_path / "mixed.jsonl", [{"text": "The lamp is teal"}, {"text": "word " * 9000}])
    done = cli("run", task, tmp_path / "mixed.jsonl", "--json")
    assert "row 2: " in complaint(done, 1)
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["error"] is None
    assert second["answer"] == ""
    assert "context" in second["error"]


def test_a_program_of_another_model_is_refused(cli: Cli, task: Path, tmp_path: Path) -> None:
    body = cli("optimize", task, "--json").json
    saved = Path(body["program"])
    text = saved.read_text("utf-8").replace("sha256: ''", "sha256: 0123456789abcdef")
    saved.write_text(text, encoding="utf-8")
    assert "made for model 'scripted' with sha256 0123456789ab" in complaint(cli("eval", task, "--program", saved), 1)


# ── what is printed ──────────────────────────────────────────────────────────────────────────────

CONTROLS = "\x1b[31m\x07\x9b31m\x7f\u202e\r\x00"


def test_control_characters_from_data_come_out_inert(cli: Cli, task: Path, tmp_path: Path) -> None:
    strange = [{"text": f"The lamp {n} is {CONTROLS}", "colour": f"{CONTROLS}{n % 2}"} for n in range(84)]
    write(tmp_path / "train.jsonl", strange[:80])
    write(tmp_path / "test.jsonl", strange[80:])
    declare(tmp_path, program=node(choices="auto"))
    for arguments in (
        ["eval", task], ["eval", task, "--json"], ["run", task, tmp_path / "test.jsonl"],
        ["run", task, tmp_path / "test.jsonl", "--json"], ["optimize", task], ["runs", task],
    ):  # fmt: skip
        done = cli(*arguments)
        assert done.code == 0
        printed = done.out + done.err
        assert not set(CONTROLS.replace("[31m", "").replace("31m", "")) & set(printed), arguments
    answer = cli("run", task, "-i", f"text={CONTROLS}", "--json").json
    assert answer["inputs"]["text"] == CONTROLS, "JSON still says exactly what was there"


def test_control_characters_in_a_complaint_come_out_inert(cli: Cli, task: Path) -> None:
    line = complaint(cli("eval", task, "--model", "bad\x1b[31m\nname"), 5)
    assert "\\x1b" in line


def test_rich_markup_in_data_is_shown_as_it_is(cli: Cli, task: Path, tmp_path: Path) -> None:
    marked = [{"text": f"[bold]{n}[/bold]", "colour": f"[red]{n % 2}[/red]"} for n in range(84)]
    write(tmp_path / "train.jsonl", marked[:80])
    write(tmp_path / "test.jsonl", marked[80:])
    declare(tmp_path, program=node(choices="auto"))
    assert "[red]1[/red]" in cli("eval", task).out


def test_json_is_one_line_where_nobody_reads_it(cli: Cli, task: Path) -> None:
    assert cli("eval", task, "--json").out.count("\n") == 1


# ── the command itself ───────────────────────────────────────────────────────────────────────────


def test_the_module_is_the_command() -> None:
    from engine import __version__

    done = localgrad("--version")
    assert (done.returncode, done.stdout) == (0, f"localgrad, version {__version__}\n")


def test_help_is_quick_and_loads_neither_numpy_nor_llama() -> None:
    program = (
        "import sys\nfrom engine.cli import run\ncode = run(['--help'])\n"
        "print(sorted({'numpy', 'llama_cpp', 'pydantic', 'apsw', 'torch', 'faiss'} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.0
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_keeps_the_layout_of_its_example(cli: Cli) -> None:
    from engine.cli import cli as group

    shown = cli("--help")
    assert shown.code == 0
    listed = [line.split()[0] for line in shown.out.split("Commands:\n")[1].splitlines()]
    assert listed == group.list_commands(None)  # type: ignore[arg-type]
    assert "  localgrad init demo                  a task to start from\n" in shown.out
    assert "\\b" not in shown.out


@pytest.mark.parametrize("name", ["init", "doctor", "models", "run", "eval", "optimize", "runs", "diff", "graph"])
def test_every_command_has_help_of_its_own(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert done.code == 0
    assert f"localgrad {name}" in done.out
    assert "--json" in done.out


def test_a_program_is_drawn_as_lines_as_json_and_as_a_picture(cli: Cli, task: Path, tmp_path: Path) -> None:
    picture = tmp_path / "program.svg"
    shown = cli("graph", str(task), "--svg", str(picture))
    assert shown.code == 0
    assert any(" predict " in line for line in shown.out.splitlines())
    assert picture.read_text("utf-8").startswith("<svg ")
    assert json.loads(cli("graph", str(task), "--json").out)["lines"] == shown.out.splitlines()
    refused = cli("graph", str(task), "--svg", str(tmp_path / "nowhere" / "a.svg"))
    assert refused.code == 2
    assert refused.err.startswith("localgrad: --svg ")


def test_a_closed_pipe_is_no_error(task: Path) -> None:
    command = f"'{sys.executable}' -m engine run '{task}' '{task.parent / 'train.jsonl'}' | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.stdout.strip() in COLOURS
    assert "Traceback" not in done.stderr


def test_diff_of_a_task_is_of_that_task(make_task: Any, cli: Cli) -> None:
    task = make_task()
    cli("optimize", task, "--budget", "300calls")
    other = task.with_name("other.yaml")
    other.write_text(task.read_text("utf-8").replace("name: small", "name: other"), "utf-8")
    assert "no finished run of" in complaint(cli("diff", other), 2)
    cli("optimize", other, "--budget", "300calls")
    assert cli("diff", task).out.startswith("small-")
    assert cli("diff", other).out.startswith("other-")


def test_a_dev_split_that_can_decide_nothing_is_told(make_task: Any, cli: Cli) -> None:
    data = {"train": {"path": "train.jsonl"}, "dev": {"from": "train", "limit": 3}}
    task = make_task(data={**data, "inputs": {"question": "question"}, "target": "label"})
    assert "3 dev rows can decide nothing" in cli("optimize", task, "--budget", "60calls").err


def test_an_input_in_place_of_a_file_is_told_how_to_give_it(make_task: Any, cli: Cli) -> None:
    assert "one input is given as -i question=…" in complaint(cli("run", make_task(), "question=Why?"), 2)


def test_layers_says_what_there_is_and_what_it_takes(cli: Cli) -> None:
    listed = json.loads(cli("layers", "--json").out)
    assert {"predict", "vote"} <= listed["layers"].keys()
    assert {"rag", "react"} <= listed["architectures"].keys()
    assert all(what for found in listed.values() for what in found.values())
    for name in ("tree_search", "memory", "predict", "router"):
        assert f" {name}\n" in cli("layers", name).out
    vote = json.loads(cli("layers", "vote", "--json").out)[0]["settings"]
    assert {"setting": "weights", "what": "count, likelihood", "default": "count"} in vote
    rag = json.loads(cli("layers", "rag", "--json").out)[0]["settings"]
    assert {"setting": "index", "what": "text", "default": "needed"} in rag
    assert "did you mean 'vote'?" in complaint(cli("layers", "vot"), 2)
