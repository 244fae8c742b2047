"""Calls as rows: what is written of an answer, and how it is read back or found to be damaged."""

import json
from dataclasses import asdict
from typing import Any

from engine.records import Call, Completion, Passage
from engine.store.keys import canonical, digest

PUT_CALL = (
    "INSERT INTO calls (key, model, kind, request, prompt, answer, digest, "
    "prompt_tokens, generated_tokens, computed_tokens, seconds) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, "
    "digest = excluded.digest, prompt_tokens = excluded.prompt_tokens, generated_tokens = excluded.generated_tokens, "
    "computed_tokens = excluded.computed_tokens, seconds = excluded.seconds, paid = paid + 1"
)
ANSWER = "CAST(answer AS BLOB), digest, prompt_tokens, generated_tokens, computed_tokens, seconds"


def call_columns(call: Call) -> tuple[Any, ...]:
    """Values in the order of PUT_CALL."""
    done = call.completion
    answer = canonical(
        {
            name: value
            for name in ("text", "loglikelihoods", "winner", "error", "finish")
            if (value := getattr(done, name)) not in (None, "")
        }
        | ({"passages": [asdict(passage) for passage in done.passages]} if done.passages is not None else {})
        | ({"text": ""} if done.text == "" else {})
    )
    tokens = (done.prompt_tokens, done.generated_tokens, done.computed_tokens)
    return (call.key, call.model, call.kind, call.request, call.prompt, answer, digest(answer), *tokens, done.seconds)


def completion_of(key: str, row: tuple[Any, ...]) -> Completion | None:
    """A completion, failed or not, from the values of ANSWER; None where they are damaged."""
    text = row[0].decode("utf-8", "replace")  # a damaged row need not be text
    if digest(text) != row[1]:
        return None
    answer = json.loads(text)
    scores, passages = answer.get("loglikelihoods"), answer.get("passages")
    return Completion(
        key=key,
        text=answer.get("text"),
        loglikelihoods=None if scores is None else tuple(scores),
        winner=answer.get("winner"),
        passages=None if passages is None else tuple(Passage(**passage) for passage in passages),
        error=answer.get("error"),
        finish=answer.get("finish", ""),
        prompt_tokens=row[2],
        generated_tokens=row[3],
        computed_tokens=row[4],
        seconds=row[5],
    )
