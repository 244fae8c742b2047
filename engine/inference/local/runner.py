"""A model at work: a scheduler over a unified cache for scores, a writer over a split one for texts.

Which jobs go where is decided here and nowhere else. Short texts behind a long beginning that many have in common, such
as demonstrations, are written in the unified cache, which holds it once and reads many prompts in one batch: 64 answers
of 4 tokens behind 16 demonstrations of svamp took 6.6 s there and 20 s in streams, but answers of 64 tokens behind none
27 s and 7.5 s. Not thread-safe: one owner thread calls all of it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from engine.inference.local.context import LlamaContext
from engine.inference.local.jobs import Job
from engine.inference.local.llama import LlamaModel
from engine.inference.local.prefix import shared_length
from engine.inference.local.scheduler import Scheduler
from engine.inference.local.shape import Shape
from engine.inference.local.writing import open_writer
from engine.records import Completion

_LONG = 10  # tokens in common for each that may be written: with 250 for 64 streams were faster, with 940 for 64 slower


class Runner:
    """Jobs in, completions out, one `step` at a time."""

    def __init__(self, model: LlamaModel, shape: Shape, writing: Shape, parallel: int, ordered: bool) -> None:
        """Allocate the unified cache in one shape; the split one follows when there is something to write, in another.

        Raises:
            ModelError: there is not enough memory.
        """
        self._context = LlamaContext(model, shape)
        self._scheduler = Scheduler(self._context, parallel, ordered)
        self._ordered = ordered
        self._writer = open_writer(model, writing, parallel)

    @property
    def busy(self) -> bool:
        """Whether a step would have something to do."""
        return self._scheduler.busy or self._writer.busy

    @property
    def decoded_rows(self) -> int:
        """Rows given to llama_decode so far."""
        return self._context.decoded_rows + self._writer.decoded_rows

    @property
    def decoded_outputs(self) -> int:
        """Rows of logits that came back so far."""
        return self._context.decoded_outputs + self._writer.decoded_outputs

    @property
    def decode_seconds(self) -> float:
        """Time spent inside llama_decode so far."""
        return self._context.decode_seconds + self._writer.decode_seconds

    def refusal(self, job: Job) -> str | None:
        """Why a job can never run here; None where it can."""
        return self._scheduler.refusal(job)

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs that `refusal` has let through: with the writer those that write and fit into its streams."""
        jobs = sorted(jobs, key=lambda job: job.order)
        written: list[Job] = []
        others: list[Job] = []
        for place, job in enumerate(jobs):
            neighbours = (*jobs[max(0, place - 1) : place], *jobs[place + 1 : place + 2])
            streamed = job.writes and self._writer.takes(job) and not self._mostly_shared(job, neighbours)
            (written if streamed else others).append(job)
        self._writer.add(written)
        self._scheduler.add(others)

    def _mostly_shared(self, job: Job, neighbours: Sequence[Job]) -> bool:
        """Whether what a job has in common with others is long beside what it may write.

        Where the cache is ordered no batch is computed in tiles, and streams are faster all the same.
        """
        if self._ordered:
            return False
        common = max((shared_length(job.order, other.order) for other in neighbours), default=0)
        return max(common, self._scheduler.known(job)) >= _LONG * job.extra_cells

    def step(self) -> Iterator[Completion]:
        """One step of each that has something to do; what was completed."""
        if self._writer.busy:
            yield from self._writer.step()
        if self._scheduler.busy:
            yield from self._scheduler.step()

    def drop(self, keys: Collection[str]) -> None:
        """Drop these jobs, waiting or begun; what they held is free for others."""
        self._scheduler.drop(keys)
        self._writer.drop(keys)

    def clear(self) -> None:
        """Drop all jobs."""
        self._scheduler.clear()
        self._writer.clear()

    def close(self) -> None:
        """Free both caches."""
        self._writer.close()
        self._context.close()
