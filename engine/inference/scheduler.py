"""The scheduler: continuous batching over one context.

Each step admits waiting jobs as cells and sequences allow, fills one batch with a row of every writing job and then
with prompt rows, decodes it, and hands the logits back. Waiting jobs are kept sorted by their tokens, so that those
with a common beginning stand together and share a trunk.
"""

import time
from collections.abc import Iterable

from engine.inference.jobs import Job
from engine.inference.llama import MAX_SEQUENCES, LlamaContext
from engine.inference.prefix import Trunk, Trunks
from engine.records import Completion

_MAX_OUTPUTS = 128


class Scheduler:
    """Jobs in, completions out, one `step` at a time. Not thread-safe: its owner thread calls everything."""

    def __init__(self, context: LlamaContext, parallel: int) -> None:
        """`parallel` bounds the sequences in use by jobs at one time."""
        self._context = context
        self._parallel = min(parallel, MAX_SEQUENCES - 16)
        self._free = list(range(MAX_SEQUENCES - 1, -1, -1))
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._trunks = Trunks()
        self._started: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Whether a step would have something to do."""
        return bool(self._waiting or self._running)

    def refusal(self, job: Job) -> str | None:
        """Why a job can never run here; None where it can."""
        needed = len(job.tokens) + job.extra_cells
        if not job.tokens:
            return "the prompt is empty"
        if needed > self._context.cells:
            return (
                f"the prompt needs {needed:,} tokens ({len(job.tokens):,} and {job.extra_cells:,} for the answer), "
                f"the context holds {self._context.cells:,}"
            )
        if job.sequences_needed > MAX_SEQUENCES - 16:
            return f"the choices branch into {job.sequences_needed} paths; at most {MAX_SEQUENCES - 16} fit"
        return None

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs that `refusal` has let through.

        An idle scheduler begins afresh, with an empty cache, so that what jobs added together compute depends on
        nothing that was computed before them.
        """
        if not self.busy:
            self.clear()
        now = time.perf_counter()
        for job in jobs:
            self._waiting.append(job)
            self._started[job.key] = now
        self._waiting.sort(key=lambda job: job.order)

    def clear(self) -> None:
        """Drop all jobs and trunks and empty the cache."""
        for job in [*self._running, *self._waiting]:
            job.close()
        self._running, self._waiting = [], []
        self._started.clear()
        self._trunks = Trunks()
        self._free = list(range(MAX_SEQUENCES - 1, -1, -1))
        self._context.empty()

    def step(self) -> list[Completion]:
        """Schedule, decode, read: one pass. Returns what was completed."""
        self._trunks.tick()
        self._admit()
        taken = self._fill()
        logits = self._context.decode()
        for row, (job, slot) in enumerate(taken):
            job.take(slot, logits[row])
        return self._collect()

    def _admit(self) -> None:
        """Start waiting jobs while one batch can still take their rows and the cache their cells."""
        rows = sum(len(job.rows) for job in self._running) + sum(len(trunk.rows) for trunk in self._trunks)
        index = 0
        while index < len(self._waiting) and rows < self._context.batch_rows:
            job = self._waiting[index]
            trunk, length = self._trunks.best(job)
            neighbours = self._waiting[max(0, index - 1) : index] + self._waiting[index + 1 : index + 2]
            wanted = self._trunks.worth_adding(job, neighbours, length)
            if trunk and not trunk.ready:
                index += 1
            elif wanted and self._room(wanted - length, 1, spare=len(job.tokens) + job.extra_cells):
                sequence = self._free.pop()
                if trunk:
                    self._context.share(trunk.sequence, sequence, length)
                rows += len(self._trunks.add(job, wanted, sequence, length).rows)
                index += 1
            elif self._room(len(job.tokens) - length + job.extra_cells, job.sequences_needed):
                del self._waiting[index]
                rows += self._start(job, trunk, length)
            elif self._running or any(not trunk.ready for trunk in self._trunks):
                return
            else:
                rows += self._start_alone(self._waiting.pop(index))

    def _start(self, job: Job, trunk: Trunk | None, length: int) -> int:
        """Run a job on free sequences; how many rows it brought."""
        sequences = tuple(self._free.pop() for _ in range(job.sequences_needed))
        if trunk:
            for sequence in sequences:
                self._context.share(trunk.sequence, sequence, length)
        job.start(sequences, length)
        job.trunk, job.private_cells = trunk, len(job.tokens) - length + job.extra_cells
        self._running.append(job)
        return len(job.rows)

    def _start_alone(self, job: Job) -> int:
        """Run a job that fits only an empty cache."""
        for trunk in list(self._trunks):
            self._drop(trunk)
        return self._start(job, None, 0)

    def _room(self, cells: int, sequences: int, spare: int = 0) -> bool:
        """Whether this much is free, dropping idle trunks as needed. `spare` cells must be left over."""
        if sum(len(job.sequences) for job in self._running) + sequences > self._parallel and self._running:
            return False
        while True:
            used = self._trunks.cells + sum(job.private_cells for job in self._running)
            if used + cells + spare <= self._context.cells and len(self._free) >= sequences:
                return True
            trunk = self._trunks.oldest_idle({id(job.trunk) for job in self._running})
            if trunk is None:
                return False
            self._drop(trunk)

    def _fill(self) -> list[tuple[Job, tuple[int, ...]]]:
        """Put rows into the batch, writing jobs first; whose logits will come back, in order."""
        taken: list[tuple[Job, tuple[int, ...]]] = []
        room = self._context.batch_rows
        for trunk in self._trunks:
            while trunk.rows and room:
                row = trunk.rows.popleft()
                self._context.add(row.token, row.position, row.sequences, wants_logits=False)
                room -= 1
        for job in sorted(self._running, key=lambda job: len(job.rows) > 1):
            while job.rows and room and len(taken) < _MAX_OUTPUTS:
                row = job.rows.popleft()
                self._context.add(row.token, row.position, row.sequences, row.slot is not None)
                job.computed += 1
                room -= 1
                if row.slot is not None:
                    taken.append((job, row.slot))
        return taken

    def _collect(self) -> list[Completion]:
        """Completions of the jobs that have a result, their sequences freed."""
        done = [job for job in self._running if job.result is not None]
        if done:
            self._running = [job for job in self._running if job.result is None]
        return [self._completion(job) for job in done]

    def _completion(self, job: Job) -> Completion:
        self._release(job)
        result = job.result
        assert result is not None  # _collect chose only such jobs
        seconds = time.perf_counter() - self._started.pop(job.key)
        return Completion(
            key=result.key,
            text=result.text,
            loglikelihoods=result.loglikelihoods,
            finish=result.finish,
            prompt_tokens=result.prompt_tokens,
            generated_tokens=result.generated_tokens,
            computed_tokens=job.computed,
            seconds=seconds,
        )

    def _release(self, job: Job) -> None:
        job.close()
        for sequence in job.sequences:
            self._forget(sequence)

    def _drop(self, trunk: Trunk) -> None:
        self._trunks.remove(trunk)
        self._forget(trunk.sequence)

    def _forget(self, sequence: int) -> None:
        self._context.drop(sequence)
        self._free.append(sequence)
