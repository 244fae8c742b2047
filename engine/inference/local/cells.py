"""The cells of a unified cache: which sequences are free, what jobs hold, and which nodes of the prefix tree are in it.

Two policies for cells that come free. `throughput` gives them back at once. `ordered` gives them back only when no job
holds any, so that the cells of every prompt stay in the order of its tokens: attention sums over cells in their order,
and so a job computes the same bits whatever runs beside it (where the context's kernels add nothing of their own).

Either way the cache holds little that the next batch does not need: a row looks at every cell in use, and 9,000 cells
cost it as much again (SmolLM2-135M, 2 cores of an Intel Xeon). Nodes of the tree that rest are parked outside.
"""

from collections.abc import Container

import numpy as np

from engine.inference.local.context import USABLE_SEQUENCES, LlamaContext
from engine.inference.local.jobs import Job, Segment
from engine.inference.local.prefix import Match, Node, PrefixTree
from engine.inference.local.shape import SPLIT_CELLS

_GRAVE = USABLE_SEQUENCES - 1
_LANES = USABLE_SEQUENCES - 1


class Cells:
    """Who holds what in one context. Computes nothing: rows of new nodes and jobs are put into batches elsewhere."""

    def __init__(self, context: LlamaContext, ordered: bool) -> None:
        self._context, self.ordered = context, ordered
        self.tree = PrefixTree()
        self._free = list(range(_LANES - 1, -1, -1))
        self._holders: set[Job] = set()
        self._buried = 0
        self._scattered = False

    # ── room ─────────────────────────────────────────────────────────────────────────────────────

    def fits(self, cells: int, sequences: int) -> bool:
        """Whether this much is free; without order, nodes that nobody stands on make room."""
        while True:
            used = self.tree.cells + self._buried + sum(job.private_cells for job in self._holders)
            if used + cells <= self._context.cells and len(self._free) >= sequences:
                return True
            node = None if self.ordered else self.tree.oldest_idle(self._context.decoded_rows)
            if node is None:
                return False
            self._park(node)

    def crowded_by(self, cells: int) -> bool:
        """Whether so much more of a tree would leave too little for whole batches."""
        reserve = min(2 * self._context.batch_rows, self._context.cells // 2)
        return self.tree.cells + cells + reserve > self._context.cells

    @property
    def movable(self) -> bool:
        """Whether something may be taken out of the cache now: with order only when no job holds a cell."""
        if self.ordered:
            return not self._holders and all(node.ready for node in self.tree)
        return any(node.idle for node in self.tree)

    def tidy(self, wanted: Container[Node]) -> None:
        """Take out of the cache what is not wanted, now that something may be; with order all of it, or nothing."""
        if self.ordered:
            self._context.drop(_GRAVE)
            self._buried = 0
            if self._scattered or any(node.sequence is not None and node not in wanted for node in self.tree):
                self.park_all()
        else:
            while resting := [node for node in self.tree if node.idle and node not in wanted]:
                for node in resting:
                    self._park(node)
        self.tree.forget_parked(min(self._context.cells, SPLIT_CELLS) // 2, wanted)

    def forget_all(self) -> None:
        """Forget the tree, too."""
        self.tree = PrefixTree()
        self._start_over()

    def park_all(self) -> None:
        """Take every node out of the cache and begin with an empty one. No job may hold a cell."""
        for node in self.tree:
            if node.sequence is not None:
                self._copy_out(node)
                self.tree.park(node)
        self._start_over()

    def _start_over(self) -> None:
        self._free = list(range(_LANES - 1, -1, -1))
        self._holders.clear()
        self._buried, self._scattered = 0, False
        self._context.empty()

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, job: Job, match: Match) -> None:
        """Begin a job, for which there is room, on sequences that hold what the tree knows of it."""
        sequences = [self._free.pop() for _ in range(job.sequences_needed)]
        if match.node:
            match.node.users += 1
            for sequence in sequences:
                self._context.share(_resident(match.node), sequence, match.length)
        job.base, job.shared, job.private_cells = match.node, match.length, private_cells(job, match)
        self._holders.add(job)
        job.start(sequences, match.length)

    def fork(self, job: Job, segment: Segment) -> bool:
        """Make a segment's own sequence, a node that nobody stands on giving up its own; False where none is free."""
        if not self._free and (node := self.tree.oldest_idle(self._context.decoded_rows)) is not None:
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

    def release(self, job: Job) -> None:
        """Take a job's sequences back."""
        for sequence in job.sequences:
            self._give_back(sequence, job.shared)
        self._buried += job.private_cells if self.ordered else 0
        if isinstance(job.base, Node):
            job.base.users -= 1
        job.sequences, job.base, job.private_cells = [], None, 0
        self._holders.discard(job)

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────

    def add_node(self, job: Job, match: Match, end: int) -> Node:
        """A new node below the one that matches, which is in the cache, cutting that one where the job leaves it."""
        above = match.node
        if above and match.length < above.end:
            upper = self._free.pop()
            self._context.share(_resident(above), upper, match.length)
            above = self.tree.split(above, match.length, upper)
        sequence = self._free.pop()
        if above:
            self._context.share(_resident(above), sequence, match.length)
        self._note_scatter()
        return self.tree.add(job, Match(above, match.length), end, sequence, self._context.decoded_rows)

    def bring(self, node: Node | None) -> bool:
        """Put a parked node and those above it back into the cache; False where they have no room."""
        back = parked(node)
        if not self.fits(sum(len(above.tokens) for above in back), len(back)):
            return False
        for above in back:
            assert above.state is not None  # parked nodes have one
            sequence = self._free.pop()
            self._context.restore(sequence, above.state)
            if above.parent:
                self._context.share(_resident(above.parent), sequence, above.start)
            self.tree.bring(above, sequence)
            above.used = self._context.decoded_rows
            self._note_scatter()
        return True

    def _note_scatter(self) -> None:
        """What lies behind cells of jobs would be followed by later tokens in front of it, once those are free."""
        self._scattered |= bool(self._holders or self._buried)

    def _park(self, node: Node) -> None:
        """Take a node out of the cache."""
        self._copy_out(node)
        self._give_back(_resident(node), node.start)
        self._buried += len(node.tokens) if self.ordered else 0
        self.tree.park(node)

    def _copy_out(self, node: Node) -> None:
        """Let a node have a copy of its own cells, and its sequence nothing but them."""
        if node.start:
            self._context.drop(_resident(node), end=node.start)
        if node.state is None:
            node.state = self._context.save(_resident(node))

    def _give_back(self, sequence: int, start: int) -> None:
        """Free a sequence. With order its cells from position `start` on stay taken until no job holds any."""
        if self.ordered:
            self._context.share(sequence, _GRAVE, -1, start=start)
        self._context.drop(sequence)
        self._free.append(sequence)


def private_cells(job: Job, match: Match) -> int:
    """The most cells that a job needs beyond what the tree knows of it."""
    return len(job.tokens) - match.length + job.extra_cells


def parked(node: Node | None) -> list[Node]:
    """The nodes down to this one that are out of the cache, the highest first."""
    return [above for above in node.path if above.sequence is None] if node else []


def _resident(node: Node) -> int:
    """The sequence of a node that is in the cache."""
    assert node.sequence is not None
    return node.sequence
