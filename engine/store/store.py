"""The store itself: opening, migrating, committing calls and traces, remembering runs and candidates.

One SQLite file, written through apsw, which brings an SQLite of its own (the system's may have a WAL bug with two
writers). A commit survives the death of the process (WAL, synchronous=NORMAL); the last ones may be lost when the whole
machine loses power, which costs their recomputation and nothing else.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from engine.errors import StoreError
from engine.records import Call, Completion, Passage, Trace
from engine.store.keys import canonical, digest
from engine.store.rows import CandidateRow, RunRow

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

    # ── calls and traces ─────────────────────────────────────────────────────────────────────────

    def completion(self, key: str) -> Completion | None:
        """The stored answer to a call; None where there is none, it failed, or its row is damaged."""
        with self._reported():
            row = self._db.execute(
                "SELECT CAST(answer AS BLOB), digest, prompt_tokens, generated_tokens, computed_tokens, seconds "
                "FROM calls WHERE key = ?",
                (key,),
            ).fetchone()
        text = row[0].decode("utf-8", "replace") if row else ""  # a damaged row need not be text
        if row is None or digest(text) != row[1]:
            return None
        answer = json.loads(text)
        if answer.get("error") is not None:
            return None
        scores, passages = answer.get("loglikelihoods"), answer.get("passages")
        return Completion(
            key=key,
            text=answer.get("text"),
            loglikelihoods=None if scores is None else tuple(scores),
            winner=answer.get("winner"),
            passages=None if passages is None else tuple(Passage(**passage) for passage in passages),
            finish=answer.get("finish", ""),
            prompt_tokens=row[2],
            generated_tokens=row[3],
            computed_tokens=row[4],
            seconds=row[5],
        )

    def commit(self, calls: Sequence[Call], traces: Sequence[Trace] = (), run: str = "") -> None:
        """Write finished calls and traces in one transaction. A call computed again counts as paid again."""
        with self._reported(), self._db:
            self._db.executemany(_PUT_CALL, [_call_row(call) for call in calls])
            self._db.executemany(_PUT_TRACE, [_trace_row(trace, run) for trace in traces])

    def call(self, key: str) -> Call | None:
        """A stored call with its prompt and request, for looking at."""
        with self._reported():
            row = self._db.execute("SELECT model, kind, request, prompt FROM calls WHERE key = ?", (key,)).fetchone()
        completion = self.completion(key)
        return Call(key, row[0], row[1], row[2], row[3], completion) if row and completion else None

    def calls_paid(self) -> tuple[int, int]:
        """How many different calls are stored, and how often a call was computed."""
        with self._reported():
            counts = self._db.execute("SELECT count(*), coalesce(sum(paid), 0) FROM calls").fetchall()
        return int(str(counts[0][0])), int(str(counts[0][1]))

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

    def runs(self) -> list[RunRow]:
        """Every run, newest first."""
        with self._reported():
            rows = self._db.execute(
                f"SELECT {RunRow.COLUMNS}, started FROM runs ORDER BY started DESC, id DESC"
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

    def calls_left(self, run: str, round: int) -> int | None:
        """How many calls a round that has begun before could count on; None for a new one."""
        with self._reported():
            row = self._db.execute(
                "SELECT calls_left FROM rounds WHERE run = ? AND number = ?", (run, round)
            ).fetchone()
        return int(row[0]) if row else None

    def put_calls_left(self, run: str, round: int, calls: int) -> None:
        """Remember how many calls a round can count on."""
        with self._reported():
            self._db.execute("INSERT OR IGNORE INTO rounds VALUES (?, ?, ?)", (run, round, calls))

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


_PUT_CALL = (
    "INSERT INTO calls (key, model, kind, request, prompt, answer, digest, "
    "prompt_tokens, generated_tokens, computed_tokens, seconds) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, "
    "digest = excluded.digest, prompt_tokens = excluded.prompt_tokens, generated_tokens = excluded.generated_tokens, "
    "computed_tokens = excluded.computed_tokens, seconds = excluded.seconds, paid = paid + 1"
)
_PUT_TRACE = "INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _call_row(call: Call) -> tuple[Any, ...]:
    done = call.completion
    answer = canonical(
        {
            name: value
            for name in ("text", "loglikelihoods", "winner", "error", "finish")
            if (value := getattr(done, name)) not in (None, "")
        }
        | ({"passages": [asdict(passage) for passage in done.passages]} if done.passages is not None else {})
        | ({"text": ""} if done.text == "" else {})
    )
    tokens = (done.prompt_tokens, done.generated_tokens, done.computed_tokens)
    return (call.key, call.model, call.kind, call.request, call.prompt, answer, digest(answer), *tokens, done.seconds)


def _trace_row(trace: Trace, run: str) -> tuple[Any, ...]:
    example = trace.example
    steps = canonical([asdict(step) for step in trace.steps])
    texts = (
        canonical(dict(example.inputs)),
        canonical(list(example.accepted)),
        steps,
        canonical(asdict(trace.prediction)),
    )
    return (run, trace.program, example.id, *texts, trace.prediction.error, trace.score)
