"""Jobs: one request on its way through the scheduler, as rows to compute and what to make of their logits.

A job knows its tokens and what it wants; it knows nothing of batches, of other jobs or of how its cells are found.
"""

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.backend import rounded
from engine.inference.local.choices import LabelTree, Tokens, bounds
from engine.inference.local.context import Ids
from engine.inference.local.llama import Grammar, LlamaModel
from engine.records import Completion, Generate

_NEGLIGIBLE_NATS = 30.0


@dataclass(eq=False, slots=True)
class Segment:
    """Consecutive tokens to compute, the first at `position`, for some sequences.

    `slot` tells the job which of its logits came back after the last token; None where they are not wanted. A segment
    with a `fork` runs on a sequence of its own, which the scheduler makes from the first `position` tokens of that one.
    """

    tokens: Ids
    position: int
    sequences: Ids
    slot: Tokens | None
    fork: int | None = None

    def first(self, rows: int) -> "Segment":
        """At most so many of its tokens, from the beginning; the whole where it is no longer than that."""
        return self if len(self.tokens) <= rows else replace(self, tokens=self.tokens[:rows], slot=None)

    def after(self, part: "Segment") -> "Segment | None":
        """What is left of it after its `first` part; None where nothing is."""
        length = len(part.tokens)
        if length == len(self.tokens):
            return None
        return replace(self, tokens=self.tokens[length:], position=self.position + length)


@dataclass(eq=False)
class Job(ABC):
    """Common to all jobs. `segments` are waiting to be computed, in an order that never runs ahead of itself.

    `order` are the prompt's tokens as big-endian bytes, by which prompts sort as their tokens do. While it runs, `base`
    is the node of the prefix tree it stands on, `shared` how many tokens it has from there and `private_cells` what it
    may hold beyond them. A job that `writes` has one sequence and goes on for many steps, a token each.
    """

    writes: ClassVar[bool] = False

    key: str
    tokens: Ids
    segments: deque[Segment] = field(default_factory=deque, init=False)
    sequences: list[int] = field(default_factory=list, init=False)
    result: Completion | None = field(default=None, init=False)
    computed: int = field(default=0, init=False)
    base: object = field(default=None, init=False)
    shared: int = field(default=0, init=False)
    private_cells: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.tokens = np.asarray(self.tokens, dtype=np.int32)
        self.order = self.tokens.astype(">u4").tobytes()

    @property
    def rows(self) -> int:
        """Rows that wait to be computed."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    @abstractmethod
    def sequences_needed(self) -> int:
        """How many sequences the job occupies from its start."""

    @property
    def sequences_most(self) -> int:
        """The most sequences it can come to occupy."""
        return self.sequences_needed

    @property
    @abstractmethod
    def extra_cells(self) -> int:
        """The most cells it can need beyond its prompt."""

    def rows_at_once(self, shared: int) -> tuple[int, int]:
        """Rows that it queues when it begins, and how many of them want logits."""
        return len(self.tokens) - shared, 1

    @abstractmethod
    def begin(self, sequences: Ids, shared: int) -> None:
        """Queue the first segments; the cache has the first `shared` tokens of the prompt for all `sequences`."""

    @abstractmethod
    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        """Receive one row of logits (vocabulary); may add segments or set `result`."""

    def start(self, sequences: Sequence[int], shared: int) -> None:
        """Begin, or begin again from nothing."""
        self.sequences = list(sequences)
        self.segments.clear()
        self.begin(np.array(sequences, dtype=np.int32), shared)

    def forked(self, slot: Tokens, sequence: int) -> None:
        """A segment's sequence has been made."""
        self.sequences.append(sequence)

    def close(self) -> None:  # noqa: B027 (most jobs hold nothing)
        """Free what the job holds outside Python."""

    def _prompt(self, sequences: Ids, shared: int) -> Segment:
        return Segment(self.tokens[shared:], shared, sequences, ())


@dataclass(eq=False)
class ScoreJob(Job):
    """Log-likelihood of each label after the prompt, all in one pass.

    A row that several labels share belongs to the sequences of all of them.
    """

    tree: LabelTree

    @property
    def sequences_needed(self) -> int:
        return max(1, len(self.tree.tips))

    @property
    def extra_cells(self) -> int:
        return len(self.tree.rows)

    def rows_at_once(self, shared: int) -> tuple[int, int]:
        rows, outputs = super().rows_at_once(shared)
        return rows + len(self.tree.rows), outputs + len(self.tree.rows)

    def begin(self, sequences: Ids, shared: int) -> None:
        self.segments.append(self._prompt(sequences, shared))
        for prefix, branches in zip(self.tree.rows, self.tree.branches, strict=True):
            position = len(self.tokens) + len(prefix) - 1
            below = sequences[np.asarray(branches)]
            self.segments.append(Segment(np.array(prefix[-1:], dtype=np.int32), position, below, prefix))
        self._missing = 1 + len(self.tree.rows)
        self._logprobs: dict[Tokens, float] = {}

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        following = self.tree.following[slot]
        for token, logprob in zip(following, logprobs(logits, following), strict=True):
            self._logprobs[(*slot, token)] = logprob
        self._missing -= 1
        if self._missing == 0:
            self.result = Completion(
                key=self.key,
                loglikelihoods=tuple(rounded(self._of(label)) for label in self.tree.labels),
                prompt_tokens=len(self.tokens),
            )

    def _of(self, label: Tokens) -> float:
        return sum(self._logprobs[label[:length]] for length in range(1, len(label) + 1))


@dataclass(eq=False)
class WinnerJob(Job):
    """The label whose log-likelihood plus bias is highest, computing as few rows as that takes.

    Best-first search (A*; Hart 1968) over the label tree: what a beginning has lost so far plus the largest bias
    below it bounds every label that begins so, since log-probabilities only fall. The label that comes off the queue
    first cannot be beaten by any other, so it is the one that scoring all of them would name.
    """

    tree: LabelTree
    bias: tuple[float, ...]

    @property
    def sequences_needed(self) -> int:
        return 1

    @property
    def sequences_most(self) -> int:
        return max(1, len(self.tree.tips))

    @property
    def extra_cells(self) -> int:
        return len(self.tree.rows)

    def begin(self, sequences: Ids, shared: int) -> None:
        self._logprob: dict[Tokens, float] = {(): 0.0}
        self._holder: dict[Tokens, int] = {(): int(sequences[0])}
        self._ends: set[Tokens] = {()}  # beginnings that nothing has been added to yet on their own sequence
        self._asked: set[Tokens] = {()}  # beginnings whose logits are asked for, or have come
        self._awaited = 1
        self._queue: list[tuple[float, int, Tokens]] = []
        self.segments.append(self._prompt(sequences, shared))

    def forked(self, slot: Tokens, sequence: int) -> None:
        super().forked(slot, sequence)
        self._holder[slot] = sequence
        self._ask_what_must_follow(slot)

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        self._awaited -= 1
        following = self.tree.following[slot]
        for token, logprob in zip(following, logprobs(logits, following), strict=True):
            prefix = (*slot, token)
            self._logprob[prefix] = self._logprob[slot] + logprob
            if prefix not in self._asked:
                best, first = bounds(self.tree, self.bias)[prefix]
                heapq.heappush(self._queue, (-rounded(self._logprob[prefix]) - best, first, prefix))
        if not self._awaited:
            self._expand()

    def _expand(self) -> None:
        """Ask for what follows the most promising beginning, or name the winner if it is a whole label."""
        _, first, prefix = self._queue[0]
        if self._is_whole(prefix):
            self.result = Completion(key=self.key, winner=first, prompt_tokens=len(self.tokens))
            return
        heapq.heappop(self._queue)
        self._ask(prefix)

    def _is_whole(self, prefix: Tokens) -> bool:
        return prefix not in self.tree.following

    def _ask(self, prefix: Tokens) -> None:
        """Have a beginning's last row computed, with those that must follow it in the same batch."""
        row = self._row(prefix)
        self.segments.append(row)
        self._asked.add(prefix)
        self._awaited += 1
        if row.fork is None:
            self._ask_what_must_follow(prefix)

    def _ask_what_must_follow(self, prefix: Tokens) -> None:
        """Go on where a label goes on in one way only."""
        following = self.tree.following[prefix]
        if len(following) == 1 and not self._is_whole((*prefix, *following)):
            self._ask((*prefix, *following))

    def _row(self, prefix: Tokens) -> Segment:
        """The last token of a beginning, on its parent's sequence where that has no other child yet, else on a fork.

        So a search holds at most as many sequences as the tree has tips.
        """
        parent, position = prefix[:-1], len(self.tokens) + len(prefix) - 1
        sequence = self._holder[parent]
        row = Segment(np.array(prefix[-1:], dtype=np.int32), position, np.array([sequence], dtype=np.int32), prefix)
        if parent in self._ends:
            self._ends.remove(parent)
            self._holder[prefix] = sequence
        else:
            row.fork = sequence
        self._ends.add(prefix)
        return row


@dataclass(eq=False)
class GenerateJob(Job):
    """Text written after the prompt, token by token, until a stop, the cap or the model's own end."""

    writes: ClassVar[bool] = True

    request: Generate
    model: LlamaModel
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._random = np.random.Generator(np.random.Philox(self.seed))
        self._written = b""
        self._count = 0
        self._grammar: Grammar | None = self.model.grammar(self.request.grammar) if self.request.grammar else None

    @property
    def sequences_needed(self) -> int:
        return 1

    @property
    def extra_cells(self) -> int:
        return self.request.max_tokens

    def begin(self, sequences: Ids, shared: int) -> None:
        self._lane = sequences
        self.segments.append(self._prompt(sequences, shared))

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        token = self._pick(logits)
        if token is None or self.model.is_end(token):
            self._finish(self._text(), "stop")
            return
        self._written += self.model.piece(token)
        self._count += 1
        text = self._text()
        cut = first_stop(text, self.request.stop)
        if cut is not None:
            self._finish(text[:cut], "stop")
        elif self._count >= self.request.max_tokens:
            self._finish(text, "length")
        else:
            position = len(self.tokens) + self._count - 1
            self.segments.append(Segment(np.array([token], dtype=np.int32), position, self._lane, ()))

    def _pick(self, logits: NDArray[np.float32]) -> int | None:
        """The next token. Under a grammar the first choice is tested alone; only its rejection costs a full mask."""
        if self._grammar is None:
            return self._sample(logits)
        token = self._sample(logits)
        if not self._grammar.allows(token):
            masked = self._grammar.masked(logits)
            if not np.isfinite(masked).any():
                return None
            token = self._sample(masked)
        if not self.model.is_end(token):
            self._grammar.accept(token)
        return token

    def _sample(self, logits: NDArray[np.float32]) -> int:
        if self.request.temperature <= 0:
            return int(logits.argmax())
        return sample(logits, self.request.temperature, self.request.top_p, self._random.random(len(logits)))

    def _text(self) -> str:
        return self._written.decode("utf-8", "ignore")

    def _finish(self, text: str, finish: str) -> None:
        self.result = Completion(
            key=self.key,
            text=text,
            finish="length" if finish == "length" else "stop",
            prompt_tokens=len(self.tokens),
            generated_tokens=self._count,
        )

    def close(self) -> None:
        if self._grammar:
            self._grammar.close()


def logprobs(logits: NDArray[np.float32], tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of a few tokens, in nats, from a row of logits (vocabulary)."""
    normalizer = log_normalizer(logits)
    return [float(logits[token]) - normalizer for token in tokens]


def log_normalizer(logits: NDArray[np.float32]) -> float:
    """log of the sum of exp(logits), over the whole vocabulary."""
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))


def sample(logits: NDArray[np.float32], temperature: float, top_p: float, uniforms: NDArray[np.float64]) -> int:
    """A token from softmax(logits / temperature), cut to the smallest set that holds `top_p` (Holtzman 2020).

    `uniforms` (vocabulary,) in [0, 1) decide which: the largest sum of a token's scaled logit and its Gumbel noise is
    a draw from the softmax (Gumbel-max). Every token keeps its own noise, so what a batch changes in the logits seldom
    changes a draw: 24 of 24 texts of 12 tokens stayed the same in F16; drawn from the cumulated probabilities, 16.
    """
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max()
    kept = np.flatnonzero(scaled > top - _NEGLIGIBLE_NATS)
    if top_p < 1.0:
        order = kept[np.argsort(-scaled[kept], kind="stable")]
        total = np.cumsum(np.exp(scaled[order] - top))
        kept = order[: int(np.searchsorted(total, top_p * total[-1])) + 1]
    with np.errstate(divide="ignore"):  # a uniform of 0 is noise of minus infinity
        noise = -np.log(-np.log(uniforms[kept]))
    return int(kept[np.argmax(scaled[kept] + noise)])


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop text begins; None where there is none."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(places) if places else None


def grammar_problem(model: LlamaModel, gbnf: str) -> str | None:
    """Why a grammar cannot be used; None where it can."""
    try:
        model.grammar(gbnf).close()
    except ModelError as error:
        return str(error)
    return None
