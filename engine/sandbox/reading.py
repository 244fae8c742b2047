"""One SQL statement on one SQLite file that can only be read. A program of its own: JSON in, JSON out.

It imports nothing of engine: it starts for every statement, in a process that is killed where it takes too long.
"""

import json
import math
import re
import resource
import sys
import time
from typing import Any, Literal

import apsw

_HEAP = 64 << 20  # bytes that SQLite may take
_STEPS = 1000  # virtual machine instructions between two looks at the clock

_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: 4 << 20,  # of a row, a text, a blob, in bytes
    apsw.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 100,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 32,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_READING = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_RECURSIVE}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
_NOT_CALLED = {"load_extension", "fts3_tokenizer", "random", "randomblob", "sqlite_log"}
_NOTHING = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?(?:\*/|\Z))*+", re.DOTALL)


class Refused(Exception):
    """A statement, or what it gives, that is not let through; with the limit that says so, if one does."""

    def __init__(self, message: str, limit: Literal["time", "memory", "output"] | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class Guard:
    """The authorizer: what a statement may do. It remembers what it refused, which SQLite does not say."""

    def __init__(self) -> None:
        self.refused = ""

    def __call__(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _READING:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_FUNCTION and str(second).lower() not in _NOT_CALLED:
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_PRAGMA and str(first).lower() in _PRAGMAS:
            return apsw.SQLITE_OK
        name = str(apsw.mapping_authorizer_function[action]).removeprefix("SQLITE_").replace("_", " ")
        what = {apsw.SQLITE_FUNCTION: second, apsw.SQLITE_PRAGMA: first}.get(action)
        self.refused = self.refused or f"{name} {what}" if what else self.refused or name
        return apsw.SQLITE_DENY


def answer(path: str, statement: str, seconds: float, rows: int, characters: int) -> str:
    """The JSON of a statement's rows.

    Raises:
        Refused: it is not one statement that reads, or passes a limit.
        apsw.Error: SQLite cannot run it, or cannot open the file.
    """
    if not _is_text(statement):
        raise Refused("the statement holds characters that are no text")
    apsw.hard_heap_limit(_HEAP)
    guard, deadline = Guard(), time.monotonic() + seconds
    try:
        db = _opened(path)
        db.authorizer = guard
        db.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        return _rows(db, statement, rows, characters)
    except apsw.InterruptError:
        raise Refused(f"time limit: ran for more than {seconds:g} s", "time") from None
    except (apsw.NoMemError, MemoryError):
        raise Refused(f"memory limit: needed more than {_HEAP >> 20} MB", "memory") from None
    except (apsw.AuthError, apsw.SQLError):
        if guard.refused:
            raise Refused(f"refused: {guard.refused}: only reading this one database is allowed") from None
        raise
    except UnicodeDecodeError:
        raise Refused("a value is text that is not UTF-8: select hex(...) of it") from None


def _opened(path: str) -> apsw.Connection:
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    db.enable_load_extension(False)
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    for limit, most in _LIMITS.items():
        db.limit(limit, most)
    for pragma in ("query_only = ON", "temp_store = MEMORY", "cell_size_check = ON"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # what is no database shows here
    return db


def _rows(db: apsw.Connection, statement: str, rows: int, characters: int) -> str:
    columns: list[str] = []

    def first(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        if not columns and not _NOTHING.fullmatch(statement, len(sql)):
            raise Refused("several statements: give one")
        columns.extend(column[0] for column in cursor.get_description())
        return True

    cursor = db.cursor()
    cursor.exec_trace = first
    kept: list[list[Any]] = []
    room, complete = characters - len(_json({"columns": columns, "rows": [], "complete": False})), True
    for row in cursor.execute(statement):
        room -= 2 + len(_json([_value(cell, name) for cell, name in zip(row, columns, strict=True)]))
        if len(kept) == rows or room < 0:
            complete = False
            break
        kept.append(list(row))
    if not columns:
        raise Refused("nothing that gives rows: expected one SELECT")
    if not complete and not kept and rows:
        raise Refused(f"output limit: the first row is longer than {characters} characters", "output")
    return _json({"columns": columns, "rows": kept, "complete": complete})


def _is_text(statement: str) -> bool:
    return not any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in statement)


def _value(cell: object, column: str) -> object:
    if isinstance(cell, bytes):
        raise Refused(f"column {column!r} holds a blob: select hex(...) or length(...) of it")
    if isinstance(cell, float) and not math.isfinite(cell):
        raise Refused(f"column {column!r} holds the number {cell}, which JSON does not know")
    return cell


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _reply(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": answer(**asked)}
    except Refused as error:
        return {"error": str(error), "limit": error.limit}
    except (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError, apsw.IOError, apsw.PermissionsError) as error:
        return {"unreadable": str(error)}
    except apsw.Error as error:
        return {"error": f"{type(error).__name__.removesuffix('Error')} error: {error}"}


if __name__ == "__main__":
    given = json.loads(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    last = math.ceil(given["seconds"]) + 1  # of processor time, should the parent die before it can end this
    resource.setrlimit(resource.RLIMIT_CPU, (last, last))
    sys.stdout.buffer.write(json.dumps(_reply(given)).encode())
