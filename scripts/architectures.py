#!/usr/bin/env python3
"""The table of architectures: every stock one on rows of a public task set, with what it scored and what it cost.

    scripts/architectures.py                         all of them, 20 rows each
    scripts/architectures.py --only rag react        some
    scripts/architectures.py --out work --rows 100   into the folder work, which can be looked at afterwards

Writes a task file for each architecture into --out, builds the index and the database they need from the corpus of
hotpotqa_ctx, and runs `localgrad eval` on test rows; the traces stay in the folder's store, for `localgrad trace list`
and `trace show`. The task sets are public ones and not part of this project, as for scripts/gains.py. Prints a Markdown
table. A model this small fails at most of these tasks: what the table shows is that every architecture runs to its end.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_METRICS = '''
"""Whether code passes the tests of its row, in the sandbox."""

import json

from engine.sandbox.python import Limits, PythonSandbox
from engine.program.code import written_code

SANDBOX = PythonSandbox()


def passes(prediction, example):
    code = f"{written_code(prediction.text)}\\n" + "\\n".join(json.loads(example.inputs["tests"]))
    return float(SANDBOX.run(code, {}, Limits()).value is not None)
'''
_TOOLS = '''
"""Arithmetic for an agent."""


def calculate(first: float, operation: str, second: float) -> float:
    """Add, subtract, multiply or divide two numbers.

    Args:
        first: a number
        operation: one of + - * /
        second: a number
    """
    return {"+": first + second, "-": first - second, "*": first * second}.get(operation) or first / second
'''


@dataclass(frozen=True)
class Trial:
    """One architecture on one task set; `program` are its settings."""

    architecture: str
    data: str
    metric: Any
    program: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=lambda: {"question": "input"})
    name: str = ""

    @property
    def title(self) -> str:
        """The name of its task."""
        return self.name or self.architecture


_KINDS = {
    "addition": "Add the numbers of the question. Answer with the number.",
    "subtraction": "Subtract the numbers of the question. Answer with the number.",
    "multiplication": "Multiply the numbers of the question. Answer with the number.",
    "division": "Divide the numbers of the question. Answer with the number.",
}
_NUMBER = {"instruction": "Answer with a number.", "outputs": {"answer": "float"}}
_TEXT = {"question": "input", "context": "context"}
_CODE = {"question": "text", "tests": "test_list"}
_CHECK = {"layer": "run_code", "then": "tests", "on_error": "text", "outputs": ["check"]}

TRIALS = (
    Trial("predict", "squad", "token_f1", inputs=_TEXT),
    Trial("cot", "gsm8k", "numeric", {"outputs": {"answer": "float"}}),
    Trial("plan_and_solve", "gsm8k", "numeric", _NUMBER),
    Trial("self_consistency", "svamp", "numeric", {"n": 5}),
    Trial("ensemble", "svamp", "numeric", {"outputs": {"answer": "float"}}),
    Trial("self_refine", "svamp", "numeric"),
    Trial("reflexion", "mbpp", {"python": "metrics.py:passes"},
          {"check": _CHECK, "max_tokens": 160, "instruction": "Write the Python function."}, _CODE),
    Trial("tree_of_thoughts", "gsm8k", "numeric", {"outputs": {"answer": "float"}}),
    Trial("rag", "hotpotqa_ctx", "token_f1", {"index": "hotpot"}),
    Trial("hybrid_rag", "hotpotqa_ctx", "token_f1", {"index": "hotpot"}),
    Trial("multi_hop_rag", "hotpotqa_ctx", "token_f1", {"index": "hotpot"}),
    Trial("react", "hotpotqa_ctx", "token_f1", {"index": "hotpot"}),
    Trial("react", "svamp", "numeric", {"tools": ["tools.py:calculate"]}, name="react_with_tool"),
    Trial("tool_call", "bfcl_simple", "tool_call", {"style": "chat", "max_tokens": 400},
          {"question": "input", "functions": "functions"}),
    Trial("pal", "svamp", "numeric"),
    Trial("program_of_thought", "gsm8k", "numeric", _NUMBER),
    Trial("router", "svamp", "numeric", {"experts": _KINDS}),
    Trial("classify_then_answer", "svamp", "numeric", {"kinds": list(_KINDS), **_NUMBER}),
    Trial("text_to_sql", "hotpotqa_ctx", "token_f1", {"database": "pages.db"}),
    Trial("nearest_demos", "svamp", "numeric", {"nearest": 4}),
)  # fmt: skip


def main() -> int:
    """Prepare, run what is asked for, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path(".localgrad/architectures"))
    parser.add_argument("--only", nargs="+", choices=[trial.title for trial in TRIALS])
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, help="where other work runs beside, 1 is faster than one a core")
    options = parser.parse_args()
    if not (options.data / "hotpotqa_ctx").is_dir():
        sys.exit(f"architectures: {options.data}: the task sets are not there; name their folder with --data")
    prepare(options.out, options.data)
    lines = ["| architecture | rows of | metric | score | failed | calls a row | tokens read | written |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for trial in TRIALS:
        if not options.only or trial.title in options.only:
            lines.append(run(trial, options))
            print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))
    return 0


def prepare(folder: Path, data: Path) -> None:
    """The files that the tasks share: a metric, a tool, an index and a database of the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.py").write_text(_METRICS.lstrip(), "utf-8")
    (folder / "tools.py").write_text(_TOOLS.lstrip(), "utf-8")
    corpus = data / "hotpotqa_ctx" / "corpus.jsonl"
    if not (folder / "pages.db").exists():
        pages = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
        with sqlite3.connect(folder / "pages.db") as database:
            database.execute("CREATE TABLE pages (title TEXT, text TEXT)")
            database.executemany("INSERT INTO pages VALUES (?, ?)", [(page["title"], page["text"]) for page in pages])
        database.close()
    indexes = ["--indexes", str(folder / "indexes")]
    _localgrad("index", "build", "hotpot", "--docs", str(corpus.resolve()), *indexes)


def run(trial: Trial, options: argparse.Namespace) -> str:
    """A line of the table."""
    path = options.out / f"{trial.title}.yaml"
    rows = (options.data / trial.data).resolve()
    task = {
        "version": 1,
        "name": trial.title,
        "model": options.model,
        "data": {
            "train": {"path": str(rows / "train.jsonl"), "limit": 200},
            "test": {"path": str(rows / "test.jsonl"), "limit": options.rows},
            "inputs": dict(trial.inputs),
            "target": "target",
            **({"accepted": "ground_truth"} if trial.data == "bfcl_simple" else {}),
        },
        "program": {"architecture": trial.architecture, **trial.program},
        "metric": trial.metric,
    }
    path.write_text(json.dumps(task, indent=2), "utf-8")  # JSON is YAML
    threads = ["--threads", str(options.threads)] if options.threads else []
    found = json.loads(_localgrad("eval", str(path), "--split", "test", "--json", *threads))
    low, high = (100 * bound for bound in found["interval"])
    cells = [
        trial.title,
        trial.data,
        found["metric"].rpartition(":")[2],
        f"{100 * found['score']:.1f} [{low:.1f}, {high:.1f}]",
        str(found["failed"]),
        f"{found['calls'] / found['n']:.1f}",
        f"{found['prompt_tokens'] / found['n']:.0f}",
        f"{found['generated_tokens'] / found['n']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _localgrad(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "engine", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"architectures: localgrad {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
