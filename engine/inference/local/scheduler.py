"""The scheduler: continuous batching over one context.

Each step fills one batch: rows of what is already running first, then beginnings that several waiting jobs share, then
the jobs that find theirs in the prefix tree. Waiting jobs are kept sorted by their tokens, so that those with a common
beginning stand together.
"""

import bisect
import time
from collections.abc import Collection, Iterable
from dataclasses import replace

from engine.inference.local.cells import Cells, parked, private_cells
from engine.inference.local.choices import Tokens
from engine.inference.local.context import LlamaContext
from engine.inference.local.jobs import Job
from engine.inference.local.prefix import Match, Node
from engine.inference.local.shape import MAX_OUTPUTS
from engine.records import Completion

_MOST_SEQUENCES_A_JOB = 240


class Scheduler:
    """Jobs in, completions out, one `step` at a time. Not thread-safe: its owner thread calls everything."""

    def __init__(self, context: LlamaContext, parallel: int, ordered: bool) -> None:
        """`parallel` bounds the sequences in use by jobs at one time."""
        self._context, self._cells = context, Cells(context, ordered)
        self._parallel = min(parallel, _MOST_SEQUENCES_A_JOB)
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._crowded = False
        self._started: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Whether a step would have something to do."""
        return bool(self._waiting or self._running)

    def refusal(self, job: Job) -> str | None:
        """Why a job can never run here; None where it can."""
        needed = len(job.tokens) + job.extra_cells
        if not len(job.tokens):
            return "the prompt is empty"
        if needed > self._context.cells:
            return (
                f"the prompt needs {needed:,} tokens ({len(job.tokens):,} and {job.extra_cells:,} for the answer), "
                f"the context holds {self._context.cells:,}"
            )
        if job.sequences_most > _MOST_SEQUENCES_A_JOB:
            return f"the choices end in {job.sequences_most} different ways; at most {_MOST_SEQUENCES_A_JOB} fit"
        return None

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs that `refusal` has let through."""
        now = time.perf_counter()
        for job in jobs:
            self._waiting.append(job)
            self._started[job.key] = now
        self._waiting.sort(key=self._rank)

    def known(self, job: Job) -> int:
        """How many tokens of a job's prompt have been computed for others."""
        return self._cells.tree.match(job).length

    def drop(self, keys: Collection[str]) -> None:
        """Drop these jobs and take back what those that have begun hold. Shared beginnings stay."""
        for job in self._running:
            if job.key in keys:
                self._cells.release(job)
        for job in [*self._running, *self._waiting]:
            if job.key in keys:
                job.close()
                del self._started[job.key]
        self._running = [job for job in self._running if job.key not in keys]
        self._waiting = [job for job in self._waiting if job.key not in keys]

    def clear(self) -> None:
        """Drop all jobs and everything in the cache."""
        for job in [*self._running, *self._waiting]:
            job.close()
        self._running, self._waiting = [], []
        self._started.clear()
        self._cells.forget_all()

    def step(self) -> list[Completion]:
        """Schedule, decode, read: one pass. Returns what was completed."""
        if self._cells.movable:
            self._cells.tidy(() if self._crowded else self._wanted())
            self._crowded = False
        taken = self._continue()
        self._share_beginnings()
        taken += self._admit()
        if not self._context.rows:
            self._unblock()
            return []
        logits = self._context.decode()
        for node in self._cells.tree:
            node.ready = node.segment is None
        for row, (job, slot) in enumerate(taken):
            job.take(slot, logits[row])
        return self._collect()

    # ── filling a batch ──────────────────────────────────────────────────────────────────────────

    @property
    def _room(self) -> int:
        """Rows that the batch can still take."""
        return max(0, self._context.affordable_rows - self._context.rows)

    def _continue(self) -> list[tuple[Job, Tokens]]:
        """Rows of nodes and jobs that have begun, those that write first; whose logits will come back."""
        for node in self._cells.tree:
            if node.segment:
                self._put_node(node)
        taken: list[tuple[Job, Tokens]] = []
        for job in sorted(self._running, key=lambda job: job.rows > 1):
            taken += self._put(job)
        return taken

    def _share_beginnings(self) -> None:
        """Give the tree the beginnings that pay, as far as the jobs of one batch reach."""
        rows, cells, index = self._context.rows, 0, 0
        brought: set[Node] = set()
        while index < len(self._waiting) and rows < self._context.affordable_rows:
            job = self._waiting[index]
            match = self._cells.tree.match(job)
            index += 1
            if match.node and not match.node.ready:
                continue
            neighbours = self._waiting[max(0, index - 2) : index - 1] + self._waiting[index : index + 1]
            end = self._cells.tree.worth_adding(job, neighbours, match.length)
            cells += private_cells(job, match)
            cells += sum(len(node.tokens) for node in parked(match.node) if node not in brought)
            brought.update(parked(match.node))
            if not end:
                rows += len(job.tokens) - match.length
                continue
            if match.node:
                match.node.used = self._context.decoded_rows
            if not self._cells.fits(cells, 2 + len(brought)):
                return
            if self._cells.ordered and self._cells.crowded_by(end - match.length):
                self._crowded |= index == 1 and self._cells.tree.cells > 0
                return
            cells -= sum(len(node.tokens) for node in parked(match.node))
            if not self._cells.bring(match.node):
                return
            node = self._cells.add_node(job, match, end)
            self._put_node(node)
            rows, cells = rows + len(node.tokens), cells - len(node.tokens)

    def _admit(self) -> list[tuple[Job, Tokens]]:
        """Start waiting jobs while the batch can take their rows and the cache their cells."""
        taken: list[tuple[Job, Tokens]] = []
        index = 0
        while index < len(self._waiting) and self._room:
            job = self._waiting[index]
            match = self._cells.tree.match(job)
            if match.node and not match.node.ready:
                index += 1
                continue
            if match.node:
                match.node.used = self._context.decoded_rows  # nothing makes room by parking it
            rows, outputs = job.rows_at_once(match.length)
            whole = rows <= self._room and outputs <= MAX_OUTPUTS - self._context.outputs
            if self._cells.ordered and self._context.rows and not whole:
                break  # begun in this batch and ended in another, it would keep cells from being freed
            if not self._may_take(job.sequences_needed) or not self._cells.bring(match.node):
                break
            if not self._cells.fits(private_cells(job, match), job.sequences_needed):
                break
            del self._waiting[index]
            self._cells.start(job, match)
            self._running.append(job)
            taken += self._put(job)
        return taken

    def _put_node(self, node: Node) -> None:
        """As many rows of a node as fit."""
        segment = node.segment
        if segment and self._room:
            part = segment.first(self._room)
            self._context.add(part.tokens, part.position, part.sequences, wants_logits=False)
            node.segment = segment.after(part)

    def _put(self, job: Job) -> list[tuple[Job, Tokens]]:
        """As many rows of a job as fit; which of its logits will come back."""
        taken: list[tuple[Job, Tokens]] = []
        while job.segments and self._room and self._context.outputs < MAX_OUTPUTS:
            segment = job.segments.popleft()
            if segment.fork is not None and not self._cells.fork(job, segment):
                job.segments.appendleft(segment)
                break
            part = segment.first(self._room)
            rest = segment.after(part)
            slot = part.slot if rest is None else None
            self._context.add(part.tokens, part.position, part.sequences, wants_logits=slot is not None)
            job.computed += len(part.tokens)
            if slot is not None:
                taken.append((job, slot))
            if rest:
                job.segments.appendleft(rest)
        return taken

    def _may_take(self, sequences: int) -> bool:
        """Whether jobs may take so many more sequences; one alone always may."""
        return not self._running or sum(len(job.sequences) for job in self._running) + sequences <= self._parallel

    def _wanted(self) -> set[Node]:
        """Nodes that jobs of the next batch stand on."""
        wanted: set[Node] = set()
        rows = 0
        for job in self._waiting:
            match = self._cells.tree.match(job)
            if match.node and match.node not in wanted:
                wanted.update(match.node.path)
            rows += len(job.tokens) - match.length
            if rows > self._context.affordable_rows:
                break
        return wanted

    def _unblock(self) -> None:
        """Nothing could be put into the batch: send the job begun last back, or start over with an empty cache.

        A job that blocks itself begins again on that empty cache, with nothing of the tree in its way.
        """
        job = self._running.pop() if self._running else None
        if job:
            self._cells.release(job)
        if job and self._running:
            bisect.insort(self._waiting, job, key=self._rank)
            return
        self._cells.forget_all()
        if job:
            self._cells.start(job, Match(None, 0))
            self._running.append(job)

    # ── what comes out ───────────────────────────────────────────────────────────────────────────

    def _collect(self) -> list[Completion]:
        """Completions of the jobs that have a result, their sequences given back."""
        done = [job for job in self._running if job.result is not None]
        if done:
            self._running = [job for job in self._running if job.result is None]
        return [self._completion(job) for job in done]

    def _completion(self, job: Job) -> Completion:
        self._cells.release(job)
        job.close()
        assert job.result is not None  # _collect chose only such jobs
        seconds = time.perf_counter() - self._started.pop(job.key)
        return replace(job.result, computed_tokens=job.computed, seconds=seconds)

    def _rank(self, job: Job) -> tuple[bool, bytes]:
        """Waiting order. Long answers first, for others to fill their batches; with order they pin cells, so last."""
        return job.writes is self._cells.ordered, job.order
