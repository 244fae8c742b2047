"""SQL that a model wrote, on a user's SQLite file: it can read that file, and nothing else.

Every statement runs in a process of its own (`reading.py`), because SQLite cannot be interrupted within one row's work:
a pattern match or a sort may take longer than any limit, and only killing what does it ends it.
"""

import json
import subprocess
import sys
from pathlib import Path

from engine.errors import ContentError, UsageError
from engine.sandbox import reading
from engine.sandbox.outcome import Outcome, one_line

_GRACE_S = 0.15  # past its time, a statement that does not end by itself is killed
_CHARACTERS = 10_000
_SCHEMA = (
    "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY rowid"
)


def run_sql(
    path: Path, statement: str, seconds: float = 1.0, rows: int = 100, characters: int = _CHARACTERS
) -> Outcome:
    """The rows of one statement, as `{"columns": [...], "rows": [[...], ...], "complete": true}`.

    At most `rows` rows and `characters` characters of JSON; what goes beyond is left out and "complete" is false. Blobs
    and infinite numbers are errors. What asks for the clock ('now') gets the real one: it may differ from run to run.
    It ends within `seconds` and a quarter of a second.

    Raises:
        UsageError: there is no such file.
        ContentError: it is no SQLite database, or cannot be opened.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file, expected an SQLite database")
    asked = {
        "path": str(path.resolve()),
        "statement": statement,
        "seconds": seconds,
        "rows": rows,
        "characters": characters,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", reading.__file__],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=seconds + _GRACE_S,
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=f"time limit: ran for more than {seconds:g} s", limit="time")
    if done.returncode:
        return Outcome(error=f"the process that read {path.name} ended with code {done.returncode}")
    reply = json.loads(done.stdout)
    if "unreadable" in reply:
        raise ContentError(f"{path}: cannot be read as an SQLite database: {one_line(reply['unreadable'])}")
    if "error" in reply:
        return Outcome(error=one_line(reply["error"]), limit=reply.get("limit"))
    return Outcome(value=reply["value"])


def schema_of(path: Path) -> str:
    """The CREATE statements of a file, one after the other, in the order they were made; for a prompt.

    Raises:
        UsageError: there is no such file.
        ContentError: it is no SQLite database, cannot be opened, or has a schema too long for any prompt.
    """
    outcome = run_sql(path, _SCHEMA, seconds=5.0, rows=10_000, characters=1_000_000)
    if outcome.value is None:
        raise ContentError(f"{path}: its schema cannot be read: {outcome.error}")
    read = json.loads(outcome.value)
    if not read["complete"]:
        raise ContentError(f"{path}: its schema is longer than 1,000,000 characters")
    return "\n".join(row[0] for row in read["rows"])
