"""The sandbox as a service: model-written Python, and model-written SQL on a user's database."""

import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.errors import UsageError
from engine.inference.models import file_sha256
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Request, RunPython, RunSql
from engine.sandbox.outcome import Outcome
from engine.sandbox.python import Limits, PythonSandbox, python_identity
from engine.sandbox.sql import run_sql, schema_of


class SandboxService:
    """Answers RunPython and RunSql; paths start from `folder`. The interpreter starts when it is first asked for."""

    name = "sandbox"
    identity = "sandbox 1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = max(1, min(4, os.cpu_count() or 1))
        self._python: PythonSandbox | None = None
        self._hashes: dict[Path, str] = {}

    def prepare(self, request: Request) -> Prepared:
        """Code is keyed by the interpreter's version, SQL by what its database holds.

        Raises:
            UsageError: the database is absent.
        """
        if isinstance(request, RunPython):
            content = {"source": request.source, "inputs": request.inputs, "seconds": request.seconds}
            return Prepared(request, request.source, {"kind": "python", "by": python_identity(), **content})
        assert isinstance(request, RunSql)  # the role is these two's
        content = {"statement": request.statement, "rows": request.rows, "seconds": request.seconds}
        shown = request.statement or f"schema of {request.database}"
        return Prepared(request, shown, {"kind": "sql", "database": self._hash(request.database), **content})

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Answer in the calling thread, several at a time; the answer is `{"value": …, "printed": …}`."""
        if any(isinstance(prepared.request, RunPython) for _, prepared in asked):
            self._sandbox()  # before there are threads, each of which would start one
        with ThreadPoolExecutor(self._workers) as threads:
            done = threads.map(lambda item: self._answer(item[1].request), asked)
            for (key, _), completion in zip(asked, done, strict=True):
                reply(key, completion)

    def _answer(self, request: Request) -> Completion:
        if isinstance(request, RunPython):
            inputs = json.loads(request.inputs)
            return _completion(self._sandbox().run(request.source, inputs, Limits(seconds=request.seconds)))
        assert isinstance(request, RunSql)  # prepare has seen to it
        path = self._folder / request.database
        if not request.statement:
            return _completion(Outcome(value=json.dumps(schema_of(path), ensure_ascii=False)))
        return _completion(run_sql(path, request.statement, request.seconds, request.rows))

    def _sandbox(self) -> PythonSandbox:
        if self._python is None:
            self._python = PythonSandbox(self._workers)
        return self._python

    def _hash(self, database: str) -> str:
        path = self._folder / database
        if path not in self._hashes:
            if not path.is_file():
                raise UsageError(f"{path}: no such file, expected an SQLite database")
            self._hashes[path] = file_sha256(path)
        return self._hashes[path]

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Nothing is ever unfinished."""

    def close(self) -> None:
        """End the interpreter's processes."""
        if self._python is not None:
            self._python.close()
            self._python = None


def _completion(outcome: Outcome) -> Completion:
    if outcome.value is None:
        return Completion(error=outcome.error)
    body = {"value": json.loads(outcome.value), "printed": outcome.printed}
    return Completion(text=json.dumps(body, ensure_ascii=False))
