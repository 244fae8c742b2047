"""The store itself: opening, migrating, committing calls, traces and remarks, remembering runs and candidates.

One SQLite file, written through apsw, which brings an SQLite of its own (the system's may have a WAL bug with two
writers). A commit survives the death of the process (WAL, synchronous=NORMAL); the last ones may be lost when the whole
machine loses power, which costs their recomputation and nothing else.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from engine.errors import StoreError
from engine.records import Call, Completion, Remark, Trace
from engine.store.calls import ANSWER, PUT_CALL, call_columns, completion_of
from engine.store.remarks import PUT_REMARK, REMARKS, remark_columns, remark_of
from engine.store.rows import CandidateRow, RunRow
from engine.store.traces import OF_TASK, PUT_TRACE, TraceRow, trace_columns, trace_id

_BUSY_MS = 30_000


class Store:
    """An open store. Use it from one thread, as a context manager."""

    def __init__(self, path: str | Path) -> None:
        """Open or create the file, and bring an older one up to date.

        Raises:
            StoreError: the file is no store, is damaged, is from a newer localgrad, or cannot be written.
        """
        self.path = Path(path)
        with self._reported():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{self.path.parent}: cannot make this folder: {error.strerror}; choose another --store"
                ) from None
            self._db = apsw.Connection(str(self.path))
            self._db.set_busy_timeout(_BUSY_MS)
            self._refuse_foreign()
            self._use_wal()
            for pragma in ("synchronous = NORMAL", "trusted_schema = OFF", "cell_size_check = ON"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            self._db.create_scalar_function("trace_id", _named, 4, deterministic=True)  # migrations ask for it
            self._migrate()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._db.close()

    # ── calls, traces and remarks ─────────────────────────────────────────────────────────────────

    def completion(self, key: str) -> Completion | None:
        """The stored answer to a call; None where there is none, it failed, or its row is damaged."""
        with self._reported():
            row = self._db.execute(f"SELECT {ANSWER} FROM calls WHERE key = ?", (key,)).fetchone()
        completion = completion_of(key, row) if row else None
        return completion if completion and completion.error is None else None

    def commit(
        self, calls: Sequence[Call], traces: Sequence[Trace] = (), run: str = "", remarks: Sequence[Remark] = ()
    ) -> None:
        """Write finished calls, traces and remarks of a run in one transaction.

        A call computed again counts as paid again; a remark made again stays one.
        """
        with self._reported(), self._db:
            self._db.executemany(PUT_CALL, [call_columns(call) for call in calls])
            self._db.executemany(PUT_TRACE, [trace_columns(trace, run) for trace in traces])
            self._db.executemany(PUT_REMARK, [remark_columns(remark, run) for remark in remarks])

    def call(self, key: str) -> Call | None:
        """A stored call with its prompt and request, for looking at; one that failed has a completion with its error.

        None where there is none, or its row is damaged.
        """
        with self._reported():
            row: Any = self._db.execute(
                f"SELECT {ANSWER}, model, kind, request, prompt FROM calls WHERE key = ?", (key,)
            ).fetchone()
        completion = completion_of(key, row) if row else None
        return Call(key, row[6], row[7], row[8], row[9], completion) if completion else None

    def calls_paid(self) -> tuple[int, int]:
        """How many different calls are stored, and how often a call was computed."""
        with self._reported():
            counts = self._db.execute("SELECT count(*), coalesce(sum(paid), 0) FROM calls").fetchall()
        return int(str(counts[0][0])), int(str(counts[0][1]))

    def traces(
        self,
        run: str = "",
        program: str = "",
        failed: bool = False,
        limit: int | None = None,
        *,
        task: str = "",
        below: float | None = None,
    ) -> list[TraceRow]:
        """Traces, last written first. `run` and `program` may be the beginning of a name; empty means any.

        With `task` only those of its runs, and of its program evaluated or run. With `failed` only those without an
        answer, and with `below` those and the ones that scored less.
        """
        with self._reported():
            rows = self._db.execute(
                f"SELECT {TraceRow.COLUMNS} FROM traces WHERE substr(run, 1, length(?1)) = ?1 "
                "AND substr(program, 1, length(?2)) = ?2 AND (error IS NOT NULL OR NOT ?3) "
                f"AND (?5 = '' OR {OF_TASK}) AND (?6 IS NULL OR error IS NOT NULL OR score < ?6) "
                "ORDER BY number DESC LIMIT ?4",
                (run, program, failed, -1 if limit is None else limit, task, below),
            ).fetchall()
        return [TraceRow.from_columns(row) for row in rows]

    def trace(self, id: str) -> TraceRow | None:
        """A trace by its whole name."""
        with self._reported():
            row = self._db.execute(f"SELECT {TraceRow.COLUMNS} FROM traces WHERE id = ?", (id,)).fetchone()
        return TraceRow.from_columns(row) if row else None

    def trace_ids(self, beginning: str) -> list[str]:
        """The names of traces that begin like this, in alphabetical order."""
        with self._reported():
            rows = self._db.execute(
                "SELECT id FROM traces WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id", (beginning,)
            ).fetchall()
        return [str(row[0]) for row in rows]

    def remarks(self, trace: str) -> list[Remark]:
        """What was said about a trace, by its whole name, in the order in which it was first said."""
        with self._reported():
            rows = self._db.execute(REMARKS, (trace,)).fetchall()
        return [remark_of(row) for row in rows]

    def cut_off(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of these calls whose text ended at the most tokens it could have."""
        with self._reported():
            rows = self._db.execute(
                "SELECT key FROM calls WHERE key IN (SELECT value FROM json_each(?)) "
                "AND CASE WHEN json_valid(answer) THEN json_extract(answer, '$.finish') = 'length' END",
                (json.dumps(list(keys)),),
            ).fetchall()
        return frozenset(str(row[0]) for row in rows)

    # ── programs ─────────────────────────────────────────────────────────────────────────────────

    def put_program(self, fingerprint: str, mapping: dict[str, Any]) -> None:
        """Remember a program by its fingerprint."""
        with self._reported():
            self._db.execute(
                "INSERT OR IGNORE INTO programs VALUES (?, ?)", (fingerprint, json.dumps(mapping, ensure_ascii=False))
            )

    def program(self, fingerprint: str) -> dict[str, Any] | None:
        """A remembered program as plain data."""
        with self._reported():
            row = self._db.execute("SELECT body FROM programs WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return json.loads(row[0]) if row else None

    # ── runs and candidates ──────────────────────────────────────────────────────────────────────

    def put_run(self, run: RunRow) -> None:
        """Insert a run, or update its settings, status, seconds and report."""
        with self._reported():
            self._db.execute(
                f"INSERT INTO runs ({RunRow.COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET "
                "settings = excluded.settings, status = excluded.status, seconds = excluded.seconds, "
                "report = excluded.report",
                run.to_columns(),
            )

    def runs(self, task: str = "") -> list[RunRow]:
        """Every run, or those of the tasks of this name, newest first."""
        with self._reported():
            rows = self._db.execute(
                f"SELECT {RunRow.COLUMNS}, started FROM runs WHERE ?1 IN ('', task) ORDER BY started DESC, id DESC",
                (task,),
            ).fetchall()
        return [RunRow.from_columns(row) for row in rows]

    def put_candidate(self, run: str, row: CandidateRow) -> None:
        """Record how a candidate fared; a replay writes the same row again."""
        with self._reported():
            self._db.execute(
                "INSERT OR REPLACE INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run, *row.to_columns()),
            )

    def candidates(self, run: str) -> list[CandidateRow]:
        """The candidates of a run, in the order they were proposed."""
        with self._reported():
            rows = self._db.execute("SELECT * FROM candidates WHERE run = ? ORDER BY number", (run,)).fetchall()
        return [CandidateRow.from_columns(row[1:]) for row in rows]

    def reading(self, run: str, round: int, name: str, read: Callable[[], float]) -> float:
        """What the clock or a counter said at a point of a run: `read` now, unless the run has been there before."""
        where = (run, round, name)
        with self._reported():
            row = self._db.execute(
                "SELECT value FROM readings WHERE run = ? AND round = ? AND name = ?", where
            ).fetchone()
            if row:
                return float(row[0])
            value = float(read())
            self._db.execute("INSERT INTO readings VALUES (?, ?, ?, ?)", (*where, value))
            return value

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _refuse_foreign(self) -> None:
        """See that the file is empty or a store, before anything is written into somebody else's database."""
        # The tables first, then the version: another process may be making the store right now.
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
        if tables and ("calls" not in tables or int(self._db.pragma("user_version")) == 0):
            raise StoreError(f"{self.path}: a database, but not a localgrad store: choose another --store")

    def _use_wal(self) -> None:
        """Switch to write-ahead logging. SQLite does not wait where two processes do so at once, so this does."""
        deadline = time.monotonic() + _BUSY_MS / 1000
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except apsw.BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        """Apply the numbered scripts this file has not seen yet; `user_version` counts them."""
        scripts = sorted(
            (item.name, item.read_text("utf-8"))
            for item in (resources.files("engine.store") / "migrations").iterdir()
            if item.name.endswith(".sql")
        )
        version = int(self._db.pragma("user_version"))
        if version > len(scripts):
            raise StoreError(
                f"{self.path}: written by a newer localgrad (store version {version}); "
                "update localgrad or choose another --store"
            )
        for number, (_, script) in enumerate(scripts, start=1):
            if number > version:
                self._db.execute("BEGIN IMMEDIATE")
                with self._db:
                    if int(self._db.pragma("user_version")) < number:
                        self._db.execute(script)
                        self._db.execute(f"PRAGMA user_version = {number}")
                self._db.execute("COMMIT")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """SQLite's complaints as one line that says what to do."""
        try:
            yield
        except (apsw.NotADBError, apsw.CorruptError):
            raise StoreError(
                f"{self.path}: not a localgrad store, or damaged: move it away or choose another --store"
            ) from None
        except apsw.FullError:
            raise StoreError(f"{self.path}: the disk is full; free some space and go on with --resume") from None
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.IOError) as error:
            raise StoreError(f"{self.path}: cannot be written ({error}); choose another --store") from None
        except apsw.BusyError:
            raise StoreError(
                f"{self.path}: another process has held the store for {_BUSY_MS // 1000} s; try again"
            ) from None
        except apsw.Error as error:
            raise StoreError(f"{self.path}: {error}") from None


def _named(*values: Any) -> str:
    """`trace_id` as SQLite calls it."""
    return trace_id(*values)
