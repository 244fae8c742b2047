"""Trunks: beginnings that several prompts share, computed once and kept in the cache while they are useful.

A trunk is a sequence that holds only a shared beginning. A job that starts like a trunk gets those cells by reference
(`seq_cp`, metadata only in a unified cache) and computes the rest. A trunk may itself begin with an older trunk. Trunks
that nobody used lately are dropped when room is needed.
"""

from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.inference.choices import Tokens
from engine.inference.jobs import Job, Row

WORTHWHILE = 16


@dataclass(eq=False)
class Trunk:
    """A shared beginning in the cache. It is ready once all its rows have been computed."""

    tokens: Tokens
    order: bytes
    sequence: int
    rows: deque[Row] = field(default_factory=deque)
    used: int = 0

    @property
    def ready(self) -> bool:
        """Whether jobs may build on it."""
        return not self.rows


def shared_length(first: bytes, second: bytes) -> int:
    """How many tokens two prompts have in common at their beginning. Prompts come as big-endian 32-bit tokens."""
    length = min(len(first), len(second)) // 4
    if length == 0:
        return 0
    differs = np.frombuffer(first, ">u4", length) != np.frombuffer(second, ">u4", length)
    return int(differs.argmax()) if differs.any() else length


class Trunks:
    """All trunks of one context."""

    def __init__(self) -> None:
        self._trunks: list[Trunk] = []
        self._clock = 0

    def __iter__(self) -> Iterator[Trunk]:
        return iter(self._trunks)

    @property
    def cells(self) -> int:
        """Cells the trunks hold; an upper bound, since a trunk may share cells with an older one."""
        return sum(len(trunk.tokens) for trunk in self._trunks)

    def tick(self) -> None:
        """A step begins: what is used from now on is in use and will not be dropped during the step."""
        self._clock += 1

    def best(self, job: Job) -> tuple[Trunk | None, int]:
        """The trunk with which the job has most in common, and how many tokens; its last token is never among them."""
        best, length = None, 0
        for trunk in self._trunks:
            common = min(shared_length(trunk.order, job.order), len(job.tokens) - 1)
            if common > length:
                best, length = trunk, common
        if best:
            best.used = self._clock
        return best, length

    def worth_adding(self, job: Job, neighbours: Sequence[Job], known: int) -> int:
        """Length of a new trunk for `job` and the waiting jobs that sort next to it; 0 where it would not pay."""
        common = max((shared_length(job.order, other.order) for other in neighbours), default=0)
        common = min(common, len(job.tokens) - 1)
        return common if common - known >= WORTHWHILE else 0

    def add(self, job: Job, length: int, sequence: int, base: int) -> Trunk:
        """Begin a trunk with the job's first `length` tokens; `sequence` has the first `base` of them already."""
        rows = deque(Row(job.tokens[position], position, (sequence,), None) for position in range(base, length))
        trunk = Trunk(job.tokens[:length], job.order[: 4 * length], sequence, rows, self._clock)
        self._trunks.append(trunk)
        return trunk

    def oldest_idle(self, in_use: Container[int]) -> Trunk | None:
        """The trunk unused longest that is not being computed, used in this step, or among the ids `in_use`."""
        idle = [trunk for trunk in self._trunks if trunk.ready and trunk.used < self._clock and id(trunk) not in in_use]
        return min(idle, key=lambda trunk: trunk.used, default=None)

    def remove(self, trunk: Trunk) -> None:
        """Forget a trunk; the caller frees its sequence."""
        self._trunks.remove(trunk)
