"""Jobs: one request on its way through the scheduler, as rows to compute and what to make of their logits.

A job knows its tokens and what it wants; it knows nothing of batches, of other jobs or of how its cells are found.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.backend import rounded
from engine.inference.choices import LabelTree, Tokens
from engine.inference.llama import Grammar, LlamaModel
from engine.records import Completion, Generate

_NEGLIGIBLE_NATS = 30.0


class Row(NamedTuple):
    """One token to compute at a position of some sequences.

    `slot` tells the job which of its logits came back; None where they are not wanted.
    """

    token: int
    position: int
    sequences: tuple[int, ...]
    slot: Tokens | None


@dataclass(eq=False)
class Job(ABC):
    """Common to all jobs. `rows` are waiting to be computed, in an order that never runs ahead of itself.

    While it runs, `trunk` is the shared beginning it stands on and `private_cells` what it holds beyond that.
    """

    key: str
    tokens: Tokens
    rows: deque[Row] = field(default_factory=deque, init=False)
    sequences: tuple[int, ...] = field(default=(), init=False)
    result: Completion | None = field(default=None, init=False)
    computed: int = field(default=0, init=False)
    pending_logits: int = field(default=0, init=False)
    trunk: object = field(default=None, init=False)
    private_cells: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.order = np.asarray(self.tokens, dtype=">u4").tobytes()

    @property
    @abstractmethod
    def sequences_needed(self) -> int:
        """How many sequences the job occupies while it runs."""

    @property
    @abstractmethod
    def extra_cells(self) -> int:
        """The most cells it can need beyond its prompt."""

    @abstractmethod
    def start(self, sequences: tuple[int, ...], shared: int) -> None:
        """Begin, with the first `shared` tokens of the prompt already in the cache for all `sequences`."""

    @abstractmethod
    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        """Receive one row of logits (vocabulary); may add rows or set `result`."""

    @abstractmethod
    def close(self) -> None:
        """Free what the job holds outside Python."""


@dataclass(eq=False)
class ScoreJob(Job):
    """Log-likelihood of each label after the prompt."""

    tree: LabelTree

    @property
    def sequences_needed(self) -> int:
        return max(1, len(self.tree.tips))

    @property
    def extra_cells(self) -> int:
        return len(self.tree.rows)

    def start(self, sequences: tuple[int, ...], shared: int) -> None:
        self.sequences = sequences
        last = len(self.tokens) - 1
        for position in range(shared, last + 1):
            self.rows.append(Row(self.tokens[position], position, sequences, () if position == last else None))
        for prefix, branches in zip(self.tree.rows, self.tree.branches, strict=True):
            below = tuple(sequences[branch] for branch in branches)
            self.rows.append(Row(prefix[-1], last + len(prefix), below, prefix))
        self.pending_logits = 1 + len(self.tree.rows)
        self._logprobs: dict[Tokens, float] = {}

    def take(self, slot: Tokens, logits: NDArray[np.float32]) -> None:
        normalizer = log_normalizer(logits)
        for token in self.tree.wanted(slot):
            self._logprobs[(*slot, token)] = float(logits[token]) - normalizer
        self.pending_logits -= 1
        if self.pending_logits == 0:
            self.result = Completion(
                key=self.key,
                loglikelihoods=tuple(rounded(self._of(label)) for label in self.tree.labels),
                prompt_tokens=len(self.tokens),
            )

    def close(self) -> None:
        """Nothing is held."""

    def _of(self, label: Tokens) -> float:
        return sum(self._logprobs[label[:length]] for length in range(1, len(label) + 1))


@dataclass(eq=False)
class GenerateJob(Job):
    """Text written after the prompt, token by token, until a stop, the cap or the model's own end."""

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

    def start(self, sequences: tuple[int, ...], shared: int) -> None:
        self.sequences = sequences
        last = len(self.tokens) - 1
        for position in range(shared, last + 1):
            self.rows.append(Row(self.tokens[position], position, sequences, () if position == last else None))

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
            self.rows.append(Row(token, len(self.tokens) + self._count - 1, self.sequences, ()))

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
