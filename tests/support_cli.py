"""What tests of commands share: what a command left, and the one line of a refused one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Cli = Callable[..., Done]


def complaint(done: Done, code: int) -> str:
    """The one line a refused command says; anything more fails the test."""
    lines = [line for line in done.err.splitlines() if line.startswith("localgrad: ")]
    assert done.code == code, done.err
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1] == lines[0]
    assert len(lines[0]) < 1000
    return lines[0]
