"""The seam between the pipeline and whatever answers it: the one protocol that every backend implements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.records import Completion, Prompt, Request, Score

LOGLIKELIHOOD_DECIMALS = 3

Reply = Callable[[str, Completion], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be keyed and asked: its prompt as the model will read it, and all that changes the answer."""

    request: Request
    prompt: str
    content: dict[str, Any]


class Backend(Protocol):
    """A model that answers requests, many at a time.

    `identity` names everything about the model and its runtime that changes an answer; it goes into the key of every
    call. `sha256` is the hash of the model file, empty where there is none.
    """

    identity: str
    name: str
    sha256: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how this model answers, one sentence each; it may grow with use."""

    def prepare(self, request: Request) -> Prepared:
        """Render the prompt. Cheap; called for cached requests too."""

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Start answering keyed requests; `reply(key, completion)` is called once for each, from any thread.

        A request that cannot be answered gets a completion with an `error`.
        """

    def cancel(self) -> None:
        """Drop whatever is not answered yet; no reply comes for it."""

    def count(self, prompt: Prompt) -> int:
        """Tokens in a prompt as the model reads it."""

    def computed_tokens(self) -> int:
        """Rows given to llama_decode so far."""

    def close(self) -> None:
        """Free the model. Closing twice is harmless."""


def score_content(request: Score) -> dict[str, Any]:
    """What of a scoring request, beside its prompt, changes the answer."""
    content: dict[str, Any] = {"continuations": list(request.continuations), "end": request.end}
    return content | ({"want": "winner", "bias": list(request.bias)} if request.want == "winner" else {})


def decided(request: Score, completion: Completion) -> Completion:
    """The completion as it was wanted: likelihoods of all as they are, or only which of them wins."""
    found = completion.loglikelihoods
    if request.want == "all" or found is None:
        return completion
    totals = [value + term for value, term in zip(found, request.bias or (0.0,) * len(found), strict=True)]
    return replace(completion, loglikelihoods=None, winner=totals.index(max(totals)))


def rounded(loglikelihood: float) -> float:
    """A log-likelihood as completions carry it.

    Rounding once, here, hides the last bits alone. Where a quantized model amplifies them (Q4_1: by tenths of a nat)
    only the same batch gives the same number; the runtime sees to that.
    """
    return round(float(loglikelihood), LOGLIKELIHOOD_DECIMALS) + 0.0
