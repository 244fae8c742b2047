"""Models as services: the protocol that every backend implements."""

from dataclasses import replace
from typing import Any, Protocol

from engine.inference.service import Service
from engine.records import Completion, Prompt, Score

LOGLIKELIHOOD_DECIMALS = 3


class Backend(Service, Protocol):
    """A model that answers requests.

    Its `identity` names the model and its runtime; it goes into the key of every call. `sha256` is the hash of the
    model file, empty where there is none.
    """

    sha256: str

    @property
    def context(self) -> int:
        """How many tokens a prompt and its answer may have together."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how this model answers, one sentence each; it may grow with use."""

    def count(self, prompt: Prompt) -> int:
        """Tokens in a prompt as the model reads it."""

    def computed_tokens(self) -> int:
        """Rows given to llama_decode so far."""


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
