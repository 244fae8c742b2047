"""A backend for tests that answers from a Python function, at once and always alike.

`ScriptedBackend(script)` asks `script` for every request. The model name `scripted` (or `scripted:5ms`, which takes
that long over each call) uses `keyword_script`, whose answers an optimizer can improve.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from engine.inference.backend import decided, rounded, score_content
from engine.inference.chat import ChatTemplate
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Generate, ModelRequest, Prompt, Request, Score

Answer = str | Sequence[float]
Script = Callable[[Request, str], Answer]

_TURNS = "{% for message in messages %}<{{ message.role }}>\n{{ message.content }}\n{% endfor %}<assistant>\n"


class ScriptedBackend:
    """Answers from `script(request, prompt)`: a text for Generate, log-likelihoods for Score."""

    def __init__(self, script: Script, name: str = "scripted", delay_s: float = 0.0, context: int = 8192) -> None:
        """Prompts of more than `context` words are refused, as a model refuses what does not fit."""
        self.name, self.sha256, self.notes = name, "", ()
        self.identity = f"{name} {getattr(script, '__name__', 'script')}"
        self._script, self._delay_s, self.context = script, delay_s, context
        self._template = ChatTemplate(_TURNS)
        self._computed = 0

    def prepare(self, request: Request) -> Prepared:
        """Render with a plain template of turns."""
        assert isinstance(request, ModelRequest)  # its role says so
        prompt = "".join(piece.text for piece in self._template.pieces(request.prompt))
        content: dict[str, Any] = {"kind": type(request).__name__.lower(), "prompt": prompt}
        if isinstance(request, Score):
            content |= score_content(request)
        elif isinstance(request, Generate):
            content |= {"max_tokens": request.max_tokens, "temperature": request.temperature, "sample": request.sample}
            content |= {"top_p": request.top_p, "stop": list(request.stop), "grammar": request.grammar}
        return Prepared(request, prompt, content)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Answer in the calling thread, in the order asked."""
        for key, prepared in asked:
            if self._delay_s:
                time.sleep(self._delay_s)
            reply(key, self._complete(key, prepared))

    def _complete(self, key: str, prepared: Prepared) -> Completion:
        words = len(prepared.prompt.split())
        if words > self.context:
            return Completion(
                key=key,
                error=f"the prompt needs {words:,} tokens, the context holds {self.context:,}",
                prompt_tokens=words,
            )
        self._computed += words
        answer = self._script(prepared.request, prepared.prompt)
        if isinstance(answer, str):
            written = len(answer.split())
            return Completion(
                key=key,
                text=answer,
                finish="stop",
                prompt_tokens=words,
                generated_tokens=written,
                computed_tokens=words,
            )
        scores = tuple(rounded(value) for value in answer)
        assert isinstance(prepared.request, Score)
        scored = Completion(key=key, loglikelihoods=scores, prompt_tokens=words, computed_tokens=words)
        return decided(prepared.request, scored)

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Nothing is ever unfinished."""

    def count(self, prompt: Prompt) -> int:
        """Words."""
        return sum(len(piece.text.split()) for piece in self._template.pieces(prompt))

    def computed_tokens(self) -> int:
        """Words answered so far."""
        return self._computed

    def close(self) -> None:
        """Nothing to free."""


def keyword_script(request: Request, prompt: str) -> Answer:
    """Favours some labels for no reason, notices label words in the last example, and learns a little from demos.

    So a bias helps it much and demonstrations a little, as with a small model. Text is made from a hash.
    """
    if not isinstance(request, Score):
        return f"Look for the words that name the answer; rule {int(_fraction(prompt) * 1000)}."
    last = re.split(r"\n\n|<user>", prompt)[-1].casefold()
    scores = []
    for continuation in request.continuations:
        word = continuation.strip().casefold()
        favour = 3.0 * _fraction(f"favour {word}")
        seen = 0.4 * min(3, len(re.findall(rf"\b{re.escape(word)}\s*(?:\n|$)", prompt.casefold())))
        noise = 1.5 * _fraction(f"{last} {word}")
        scores.append(-6.0 + favour + seen + noise + (2.0 if word in last else 0.0))
    return scores


def _fraction(text: str) -> float:
    """A number in [0, 1) made from a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big") / 2**48
