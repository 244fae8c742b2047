"""The prefix tree: beginnings that prompts share, computed once and kept in the cache while they are useful.

A radix tree over token ids. Every node is a run of tokens and a sequence that holds them together with all tokens above
it; in a unified cache those are the same cells. A prompt that starts like a path of the tree takes that path's cells by
reference and computes only the rest.

Every row that is computed looks at all cells in use. So a node that nobody needs for the moment is parked: what was
computed for its tokens is copied out of the cache, and back when a prompt asks for it, milliseconds where computing it
anew would take seconds.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.inference.local.context import Ids
from engine.inference.local.jobs import Job, Segment

WORTHWHILE = 16


@dataclass(eq=False, slots=True)
class Node:
    """A shared beginning, from token `start` on. `segment` is what has still to go into a batch.

    It is `ready` to be built on once all of it is computed. `users` counts the running jobs that stand on it; `used` is
    when one last began to. A parked node has no `sequence`; its `state` is the copy of its own tokens' cells.
    """

    tokens: Ids
    start: int
    sequence: int | None
    parent: "Node | None"
    segment: Segment | None
    used: int
    ready: bool = False
    state: NDArray[np.uint8] | None = None
    children: dict[int, "Node"] = field(default_factory=dict)
    users: int = 0

    @property
    def end(self) -> int:
        """How many tokens its sequence holds once it is computed."""
        return self.start + len(self.tokens)

    @property
    def idle(self) -> bool:
        """Whether it is in the cache and nothing there stands on it."""
        below = any(child.sequence is not None for child in self.children.values())
        return self.ready and self.sequence is not None and not self.users and not below

    @property
    def path(self) -> "list[Node]":
        """The nodes from the root down to this one."""
        return [*(self.parent.path if self.parent else []), self]


@dataclass(frozen=True, slots=True)
class Match:
    """How far the tree knows a prompt: `length` tokens, the last of them in `node`."""

    node: Node | None
    length: int


def shared_length(first: bytes, second: bytes) -> int:
    """How many tokens two prompts have in common at their beginning. Prompts come as big-endian 32-bit tokens."""
    length = min(len(first), len(second)) // 4
    return _common(np.frombuffer(first, ">u4", length), np.frombuffer(second, ">u4", length))


class PrefixTree:
    """All shared beginnings of one context. `cells` are those it holds in the cache, `parked` the tokens outside."""

    def __init__(self) -> None:
        self._roots: dict[int, Node] = {}
        self._nodes: dict[int, Node] = {}
        self.cells = self.parked = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, job: Job) -> Match:
        """How much of a job's prompt the tree holds, or will hold soon; its last token is never among it."""
        node, length = None, 0
        most = len(job.tokens) - 1
        while length < most:
            children = node.children if node else self._roots
            child = children.get(int(job.tokens[length]))
            if child is None:
                break
            known = _common(child.tokens, job.tokens[length:most])
            node, length = child, length + known
            if known < len(child.tokens):
                break
        return Match(node, length)

    def worth_adding(self, job: Job, neighbours: Sequence[Job], known: int) -> int:
        """Up to where `job` and the waiting jobs that sort next to it go together; 0 where a node would not pay."""
        common = max((shared_length(job.order, other.order) for other in neighbours), default=0)
        common = min(common, len(job.tokens) - 1)
        return common if common - known >= WORTHWHILE else 0

    def add(self, job: Job, above: Match, end: int, sequence: int, now: int) -> Node:
        """A node for the job's tokens up to `end`; `sequence` has those that `above` knows already.

        `above` ends where its node does: `split` sees to that.
        """
        assert above.node is None or above.length == above.node.end
        tokens = job.tokens[above.length : end]
        segment = Segment(tokens, above.length, np.array([sequence], dtype=np.int32), None)
        node = Node(tokens, above.length, sequence, above.node, segment, now)
        self._children(above.node)[int(tokens[0])] = node
        self._nodes[id(node)] = node
        self.cells += len(tokens)
        return node

    def split(self, node: Node, length: int, sequence: int) -> Node:
        """Cut a computed node in two after `length` tokens of the path; the upper half, which gets `sequence`."""
        assert node.ready
        assert node.sequence is not None
        assert node.start < length < node.end
        cut = length - node.start
        upper = Node(node.tokens[:cut], node.start, sequence, node.parent, None, node.used, ready=True)
        self._children(node.parent)[int(node.tokens[0])] = upper
        self._nodes[id(upper)] = upper
        node.tokens, node.start, node.parent, node.state = node.tokens[cut:], length, upper, None
        upper.children[int(node.tokens[0])] = node
        return upper

    def oldest_idle(self, now: int) -> Node | None:
        """The node unused longest on which nothing stands and that was not used just `now`."""
        idle = [node for node in self._nodes.values() if node.idle and node.used < now]
        return min(idle, key=lambda node: node.used, default=None)

    def park(self, node: Node) -> None:
        """Count a node as outside the cache; the caller has its state and frees its sequence."""
        assert node.state is not None
        node.sequence = None
        self.cells -= len(node.tokens)
        self.parked += len(node.tokens)

    def bring(self, node: Node, sequence: int) -> None:
        """Count a parked node as back in the cache, on a sequence that the caller has filled."""
        node.sequence = sequence
        self.cells += len(node.tokens)
        self.parked -= len(node.tokens)

    def forget_parked(self, most: int, wanted: Container[Node] = ()) -> None:
        """Forget the parked nodes unused longest until at most so many tokens are parked, but none of the wanted."""
        while self.parked > most:
            leaves = [node for node in self._nodes.values() if node.sequence is None and not node.children]
            node = min((leaf for leaf in leaves if leaf not in wanted), key=lambda leaf: leaf.used, default=None)
            if node is None:
                return
            del self._children(node.parent)[int(node.tokens[0])]
            del self._nodes[id(node)]
            self.parked -= len(node.tokens)

    def _children(self, parent: Node | None) -> dict[int, Node]:
        return self._roots if parent is None else parent.children


def _common(first: Ids, second: Ids) -> int:
    """Equal elements at the beginning of two arrays."""
    length = min(len(first), len(second))
    differs = first[:length] != second[:length]
    place = int(differs.argmax()) if length else 0
    return place if length and differs[place] else length
