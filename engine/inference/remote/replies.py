"""What a server answers, checked once where it enters: completions, and the log-likelihoods and choices in them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from engine.errors import ModelError
from engine.store.keys import canonical

Finish = Literal["stop", "length", ""]
TokenCount = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Tokens of an answer with their log-probabilities in nats (None: the first has none) and where each begins."""

    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[FiniteFloat | None, ...] = ()
    text_offset: tuple[int, ...] = ()

    def sum_over(self, prompt: str, continuation: str) -> float | None:
        """Log-likelihood of a continuation of an echoed prompt; None where the tokens do not cover both.

        A token that begins in the prompt and ends in the continuation counts; one that begins after both does not.
        Some servers count the name of the begin-of-text token among the characters: offsets are taken from where the
        text begins among the tokens.
        """
        if not len(self.tokens) == len(self.token_logprobs) == len(self.text_offset) > 0:
            return None
        before = max(0, "".join(self.tokens).find(prompt + continuation))
        start, end = before + len(prompt), before + len(prompt + continuation)
        ends = [*self.text_offset[1:], math.inf]
        places = zip(self.text_offset, ends, self.token_logprobs, strict=True)
        inside = [logprob for begin, stop, logprob in places if begin < end and stop > start]
        known = [logprob for logprob in inside if logprob is not None]
        return math.fsum(known) if known and len(known) == len(inside) and self.text_offset[0] < start else None


@dataclass(frozen=True, slots=True)
class _Usage:
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0


@dataclass(frozen=True, slots=True)
class _Message:
    content: str | None = None


@dataclass(frozen=True, slots=True)
class _Choice:
    """`text` comes from /completions, `message` from /chat/completions."""

    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion as a server gives it; of several choices only the first is read."""

    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        """What was written; empty where there is nothing."""
        first = self.choices[0]
        return (first.message.content if first.message else first.text) or ""

    @property
    def finish(self) -> Finish:
        """Why the writing ended; empty where the server has another reason or none."""
        return _FINISHES.get(self.choices[0].finish_reason or "", "")

    @property
    def logprobs(self) -> TokenLogprobs:
        """The tokens with their log-probabilities; none where the server gives none."""
        return self.choices[0].logprobs or TokenLogprobs()

    @property
    def prompt_tokens(self) -> int:
        """As the server reports; 0 where it does not."""
        return self.usage.prompt_tokens if self.usage else 0

    @property
    def generated_tokens(self) -> int:
        """As the server reports; 0 where it does not."""
        return self.usage.completion_tokens if self.usage else 0


def read_answer(content: bytes, place: str) -> Answer:
    """An answer from JSON.

    Raises:
        ModelError: it is no completion; `place` is named.
    """
    try:
        return _ANSWER.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{place}: the answer is no completion ({f'{where}: ' if where else ''}{first['msg']}): "
            "see whether an OpenAI-compatible server listens there"
        ) from None


def read_model_entry(content: bytes, model: str) -> str:
    """What a server's list of models says of one of them, as canonical JSON; empty where it says nothing usable.

    Only fields that are the same at every asking are kept: servers put the time of day and random names in others.
    """
    try:
        entry = next(entry for entry in json.loads(content)["data"] if entry["id"] == model)
        kept = canonical({name: entry[name] for name in _LASTING if entry.get(name) is not None})
        return kept.encode().decode()  # half a character is an error here, not where the identity is hashed
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return ""


def chosen(reply: str, continuations: Sequence[str]) -> int | None:
    """Which continuation a reply means: the same text but for case and outer space, else the longest it begins with.

    The reply may put quotation or emphasis marks before it and must not go on within the word. None where it means
    none of them.
    """
    said = reply.strip().casefold()
    wanted = [continuation.strip().casefold() for continuation in continuations]
    if said in wanted:
        return wanted.index(said)
    bare = said.lstrip("\"'`*_([{ \n")
    begun = [text for text in wanted if text and bare.startswith(text) and not bare[len(text) :][:1].isalnum()]
    return wanted.index(max(begun, key=len)) if begun else None


def choice_grammar(continuations: Sequence[str]) -> str:
    """GBNF under which a reply is one of the continuations, with a space before it or without."""
    quoted = [json.dumps(continuation.strip(), ensure_ascii=False) for continuation in continuations]
    return f'root ::= " "? ({" | ".join(quoted)})'


_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length"}
_ANSWER = TypeAdapter(Answer)
_LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")
