"""The scheduler: continuous batching over one context.

Each step fills one batch: rows of what is already running first, then beginnings that several waiting jobs share, then
the jobs that find theirs in the prefix tree. Waiting jobs are kept sorted by their tokens, so that those with a common
beginning stand together.

Two policies for cells that come free. `throughput` gives them back at once. `ordered` gives them back only when nothing
runs, so that the cells of every prompt stay in the order of its tokens: attention sums over cells in their order, and
so a job computes the same bits whatever runs beside it (where the context's kernels add nothing of their own).

Either way the cache holds little that the next batch does not need: a row looks at every cell in use, and 9,000 cells
cost it as much again (SmolLM2-135M, 2 cores of an Intel Xeon). Nodes of the tree that rest are parked outside.
"""

import bisect
import time
from collections.abc import Container, Iterable
from dataclasses import replace

import numpy as np

from engine.inference.local.choices import Tokens
from engine.inference.local.context import USABLE_SEQUENCES, LlamaContext
from engine.inference.local.jobs import GenerateJob, Job, Segment
from engine.inference.local.prefix import Match, Node, PrefixTree
from engine.inference.local.shape import MAX_OUTPUTS, SPLIT_CELLS
from engine.records import Completion

_GRAVE = USABLE_SEQUENCES - 1
_LANES = USABLE_SEQUENCES - 1
_MOST_LANES_A_JOB = 240


class Scheduler:
    """Jobs in, completions out, one `step` at a time. Not thread-safe: its owner thread calls everything."""

    def __init__(self, context: LlamaContext, parallel: int, ordered: bool) -> None:
        """`parallel` bounds the sequences in use by jobs at one time."""
        self._context = context
        self._parallel = min(parallel, _MOST_LANES_A_JOB)
        self._ordered = ordered
        self._free = list(range(_LANES - 1, -1, -1))
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._tree = PrefixTree()
        self._buried_cells = 0
        self._scattered = self._crowded = False
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
        if job.sequences_most > _MOST_LANES_A_JOB:
            return f"the choices end in {job.sequences_most} different ways; at most {_MOST_LANES_A_JOB} fit"
        return None

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs that `refusal` has let through."""
        now = time.perf_counter()
        for job in jobs:
            self._waiting.append(job)
            self._started[job.key] = now
        self._waiting.sort(key=self._rank)

    def clear(self) -> None:
        """Drop all jobs and everything in the cache."""
        for job in [*self._running, *self._waiting]:
            job.close()
        self._running, self._waiting = [], []
        self._started.clear()
        self._forget_all()

    def step(self) -> list[Completion]:
        """Schedule, decode, read: one pass. Returns what was completed."""
        self._tidy()
        taken = self._continue()
        self._share_beginnings()
        taken += self._admit()
        if not self._context.rows:
            self._unblock()
            return []
        logits = self._context.decode()
        for node in self._tree:
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
        for node in self._tree:
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
            match = self._tree.match(job)
            index += 1
            if match.node and not match.node.ready:
                continue
            neighbours = self._waiting[max(0, index - 2) : index - 1] + self._waiting[index : index + 1]
            end = self._tree.worth_adding(job, neighbours, match.length)
            cells += len(job.tokens) - match.length + job.extra_cells
            cells += sum(len(node.tokens) for node in _parked(match.node) if node not in brought)
            brought.update(_parked(match.node))
            if not end:
                rows += len(job.tokens) - match.length
                continue
            if match.node:
                match.node.used = self._context.decoded_rows
            if not self._fits(cells, 2 + len(brought)):
                return
            if self._ordered and self._crowds(end - match.length):
                self._crowded |= index == 1 and self._tree.cells > 0
                return
            cells -= sum(len(node.tokens) for node in _parked(match.node))
            if not self._bring(match.node):
                return
            node = self._add_node(job, match, end)
            rows, cells = rows + len(node.tokens), cells - len(node.tokens)

    def _crowds(self, length: int) -> bool:
        """Whether so much more of a tree would leave too little for whole batches."""
        reserve = min(2 * self._context.batch_rows, self._context.cells // 2)
        return self._tree.cells + length + reserve > self._context.cells

    def _add_node(self, job: Job, match: Match, end: int) -> Node:
        """Put a new node below the one that matches, cutting that one where the job leaves it."""
        above = match.node
        if above and match.length < above.end:
            upper = self._free.pop()
            self._context.share(_resident(above), upper, match.length)
            above = self._tree.split(above, match.length, upper)
        sequence = self._free.pop()
        if above:
            self._context.share(_resident(above), sequence, match.length)
        self._scattered |= bool(self._running or self._buried_cells)
        node = self._tree.add(job, Match(above, match.length), end, sequence, self._context.decoded_rows)
        self._put_node(node)
        return node

    def _admit(self) -> list[tuple[Job, Tokens]]:
        """Start waiting jobs while the batch can take their rows and the cache their cells."""
        taken: list[tuple[Job, Tokens]] = []
        index = 0
        while index < len(self._waiting) and self._room:
            job = self._waiting[index]
            match = self._tree.match(job)
            if match.node and not match.node.ready:
                index += 1
                continue
            if match.node:
                match.node.used = self._context.decoded_rows  # nothing makes room by dropping it
            rows, outputs = job.rows_at_once(match.length)
            whole = rows <= self._room and outputs <= MAX_OUTPUTS - self._context.outputs
            if self._ordered and self._context.rows and not whole:
                break  # begun in this batch and ended in another, it would keep cells from being freed
            private = len(job.tokens) - match.length + job.extra_cells
            if not self._free_lanes(job.sequences_needed) or not self._bring(match.node):
                break
            if not self._fits(private, job.sequences_needed):
                break
            del self._waiting[index]
            self._start(job, match, private)
            taken += self._put(job)
        return taken

    def _start(self, job: Job, match: Match, private: int) -> None:
        """Run a job on free sequences that begin with what the tree knows of it."""
        sequences = [self._free.pop() for _ in range(job.sequences_needed)]
        if match.node:
            match.node.users += 1
            for sequence in sequences:
                self._context.share(_resident(match.node), sequence, match.length)
        job.base, job.shared, job.private_cells = match.node, match.length, private
        job.start(sequences, match.length)
        self._running.append(job)

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
            if segment.fork is not None and not self._fork(job, segment):
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

    def _fork(self, job: Job, segment: Segment) -> bool:
        """Make a segment's own sequence, a node that nobody stands on giving up its own; False where none is free."""
        if not self._free and (node := self._tree.oldest_idle(self._context.decoded_rows)) is not None:
            self._park(node)
        if not self._free:
            return False
        sequence = self._free.pop()
        assert segment.fork is not None
        assert segment.slot is not None
        self._context.share(segment.fork, sequence, segment.position)
        segment.sequences, segment.fork = np.array([sequence], dtype=np.int32), None
        job.forked(segment.slot, sequence)
        return True

    # ── cells ────────────────────────────────────────────────────────────────────────────────────

    def _free_lanes(self, sequences: int) -> bool:
        """Whether jobs may take so many more sequences; one alone always may."""
        return not self._running or sum(len(job.sequences) for job in self._running) + sequences <= self._parallel

    def _fits(self, cells: int, sequences: int) -> bool:
        """Whether this much is free; without order, nodes that nobody stands on make room."""
        while True:
            used = self._tree.cells + self._buried_cells + sum(job.private_cells for job in self._running)
            if used + cells <= self._context.cells and len(self._free) >= sequences:
                return True
            node = None if self._ordered else self._tree.oldest_idle(self._context.decoded_rows)
            if node is None:
                return False
            self._park(node)

    def _tidy(self) -> None:
        """Before a step: take out of the cache what the next batch does not need."""
        if self._ordered and (self._running or not all(node.ready for node in self._tree)):
            return  # cells are given back when nothing runs
        wanted = self._wanted()
        if self._ordered:
            self._settle(wanted)
        else:
            while resting := [node for node in self._tree if node.idle and node not in wanted]:
                for node in resting:
                    self._park(node)
        self._tree.forget_parked(min(self._context.cells, SPLIT_CELLS) // 2, wanted)

    def _settle(self, wanted: Container[Node]) -> None:
        """Nothing runs: free the buried cells, and all others where some are scattered or of no use to what comes."""
        if self._buried_cells:
            self._context.drop(_GRAVE)
            self._buried_cells = 0
        resting = any(node.sequence is not None and node not in wanted for node in self._tree)
        if self._scattered or self._crowded or resting:
            for node in self._tree:
                if node.sequence is not None:
                    self._copy_out(node)
                    self._tree.park(node)
            self._start_over()

    def _wanted(self) -> set[Node]:
        """Nodes that jobs of the next batch stand on."""
        wanted: set[Node] = set()
        rows = 0
        for job in self._waiting if len(self._tree) else []:
            match = self._tree.match(job)
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
            self._release(job)
        if job and self._running:
            bisect.insort(self._waiting, job, key=self._rank)
            return
        self._forget_all()
        if job:
            self._start(job, Match(None, 0), len(job.tokens) + job.extra_cells)

    def _forget_all(self) -> None:
        self._tree = PrefixTree()
        self._start_over()

    def _start_over(self) -> None:
        """Empty the cache."""
        self._free = list(range(_LANES - 1, -1, -1))
        self._buried_cells, self._scattered, self._crowded = 0, False, False
        self._context.empty()

    def _release(self, job: Job) -> None:
        """Take a job's sequences back."""
        for sequence in job.sequences:
            self._give_back(sequence, job.shared)
        self._buried_cells += job.private_cells if self._ordered else 0
        if isinstance(job.base, Node):
            job.base.users -= 1
        job.sequences, job.base, job.private_cells = [], None, 0

    def _bring(self, node: Node | None) -> bool:
        """Put a parked node and those above it back into the cache; False where they have no room."""
        parked = _parked(node)
        if not self._fits(sum(len(above.tokens) for above in parked), len(parked)):
            return False
        for above in parked:
            assert above.state is not None  # parked nodes have one
            sequence = self._free.pop()
            self._context.restore(sequence, above.state)
            if above.parent:
                self._context.share(_resident(above.parent), sequence, above.start)
            self._tree.bring(above, sequence)
            above.used = self._context.decoded_rows
            self._scattered |= bool(self._running or self._buried_cells)
        return True

    def _park(self, node: Node) -> None:
        """Take a node out of the cache."""
        self._copy_out(node)
        self._give_back(_resident(node), node.start)
        self._buried_cells += len(node.tokens) if self._ordered else 0
        self._tree.park(node)

    def _copy_out(self, node: Node) -> None:
        """Let a node have a copy of its own cells, and its sequence nothing but them."""
        if node.start:
            self._context.drop(_resident(node), end=node.start)
        if node.state is None:
            node.state = self._context.save(_resident(node))

    def _give_back(self, sequence: int, start: int) -> None:
        """Free a sequence. With order its cells from position `start` on stay taken until nothing runs."""
        if self._ordered:
            self._context.share(sequence, _GRAVE, -1, start=start)
        self._context.drop(sequence)
        self._free.append(sequence)

    # ── what comes out ───────────────────────────────────────────────────────────────────────────

    def _collect(self) -> list[Completion]:
        """Completions of the jobs that have a result, their sequences given back."""
        done = [job for job in self._running if job.result is not None]
        if done:
            self._running = [job for job in self._running if job.result is None]
        return [self._completion(job) for job in done]

    def _completion(self, job: Job) -> Completion:
        self._release(job)
        job.close()
        assert job.result is not None  # _collect chose only such jobs
        seconds = time.perf_counter() - self._started.pop(job.key)
        return replace(job.result, computed_tokens=job.computed, seconds=seconds)

    def _rank(self, job: Job) -> tuple[bool, bytes]:
        """Waiting order. Long answers first, for others to fill their batches; with order they pin cells, so last."""
        return isinstance(job, GenerateJob) is self._ordered, job.order


def _parked(node: Node | None) -> list[Node]:
    """The nodes down to this one that are out of the cache, the highest first."""
    return [above for above in node.path if above.sequence is None] if node else []


def _resident(node: Node) -> int:
    """The sequence of a node that is in the cache."""
    assert node.sequence is not None
    return node.sequence
