"""What a server can do beyond the common ground: found with one small request each, when first needed, and remembered.

The common ground is /chat/completions with messages, max_tokens, temperature, top_p, stop and seed.
"""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from engine.errors import ModelError
from engine.inference.remote.replies import read_answer
from engine.inference.remote.wire import RequestFailed, Wire

CHAT, TEXT = "/chat/completions", "/completions"

_NO_SUCH_PLACE = (404, 405, 501)
_BUSY = (None, 408, 429, 502, 503, 504)
_KNOWN, _SURE, _LEAST_SURE = "The United States of", " America", -4.0  # nats
_NOTES = {
    "completions": "the server has no /completions: plain prompts are sent as one user message",
    "echo": "the server gives no usable likelihoods: a choice is what it replies at temperature 0, "
    "and a bias has no more than that to work on",
    "grammar": "the server follows no grammar: it is asked without one, and a reply that does not parse is a failure",
}


class Abilities:
    """The abilities of one model on one server.

    A server that gives no answer to the question fails this request and all later ones that need to know, with the same
    error.
    """

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire, self._model = wire, model
        self._known: dict[str, bool | ModelError] = {}
        self._lock = Lock()

    @property
    def completions(self) -> bool:
        """It continues a text as it stands."""
        return self._find("completions", self._continues)

    @property
    def echo(self) -> bool:
        """It gives the log-likelihoods of a text it is given."""
        return self.completions and self._find("echo", self._echoes)

    @property
    def grammar(self) -> bool:
        """It writes under a GBNF grammar."""
        return self._find("grammar", self._obeys)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found missing, and what is done instead, in words."""
        return tuple(words for name, words in _NOTES.items() if self._known.get(name) is False)

    def _find(self, name: str, look: Callable[[], bool]) -> bool:
        with self._lock:
            if name not in self._known:
                try:
                    self._known[name] = look()
                except ModelError as error:
                    self._known[name] = error
            found = self._known[name]
        if isinstance(found, ModelError):
            raise found
        return found

    def _continues(self) -> bool:
        try:
            self._wire.post(TEXT, self._small({"prompt": "1 2 3", "max_tokens": 1}))
        except RequestFailed as error:
            if error.status in _NO_SUCH_PLACE:
                return False
            raise
        return True

    def _echoes(self) -> bool:
        """Looks at a likelihood that every model finds high, for a server may give each token its neighbour's.

        llama-cpp-python's (0.3.36) does so where the model has no begin-of-text token; it also takes `max_tokens: 0` to
        mean no limit, so one token is asked for.
        """
        content = self._try(TEXT, {"prompt": _KNOWN + _SURE, "max_tokens": 1, "echo": True, "logprobs": 1})
        try:
            logprobs = read_answer(content, TEXT).logprobs
        except ModelError:
            return False
        found = logprobs.sum_over(_KNOWN, _SURE)
        return found is not None and found > _LEAST_SURE

    def _obeys(self) -> bool:
        """Looks at what is written, for some servers accept a grammar and ignore it."""
        turns = [{"role": "user", "content": "Say hello."}]
        content = self._try(CHAT, {"messages": turns, "max_tokens": 8, "grammar": 'root ::= "qx"'})
        try:
            return read_answer(content, CHAT).text.strip() == "qx"
        except ModelError:
            return False

    def _try(self, path: str, settings: Mapping[str, Any]) -> bytes:
        """The answer; empty where the server refuses. A 500 is a refusal too when it stays."""
        try:
            return self._wire.post(path, self._small(settings))
        except RequestFailed as error:
            if error.status in _BUSY:
                raise
            return b""

    def _small(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": self._model, "temperature": 0.0, **settings}
