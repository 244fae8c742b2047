"""The remote backend: a model behind any OpenAI-compatible server (llama-server, Ollama, LM Studio, vLLM).

A few daemon threads ask and reply, each one request at a time. How a request is put to the server is decided when it
is prepared, so that it is part of its key; `dialect.py` knows how.
"""

import math
import queue
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from engine.errors import ModelError
from engine.inference.remote.address import read_address
from engine.inference.remote.dialect import Dialect, readable
from engine.inference.remote.replies import read_model_entry
from engine.inference.remote.wire import Patience, RequestFailed, Wire
from engine.inference.service import Prepared, Reply
from engine.records import Chat, Completion, Prompt, Request
from engine.tasks.schema import RuntimeSettings

_PARALLEL = 8
_CONTEXT = 4096
_BYTES_PER_TOKEN = 4
_CLOSING_S = 1.0
_PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request on its way. No reply is given once `cancelled` is set."""

    key: str
    prepared: Prepared
    reply: Reply
    cancelled: threading.Event


class RemoteBackend:
    """A model on a server, as a `Backend`. It has no file, so `sha256` is empty."""

    def __init__(self, name: str, settings: RuntimeSettings, patience: Patience = _PATIENCE) -> None:
        """Greet the server at `http://host:port/v1#name` and start the threads.

        Raises:
            ModelError: no valid address, one outside this machine without `allow_remote`, or nothing answers there.
        """
        address = read_address(name, settings.allow_remote)
        parallel = _PARALLEL if settings.parallel == "auto" else settings.parallel
        self.name, self.sha256 = address.name, ""
        self._wire = Wire(address, patience, connections=parallel + 1)
        self.identity = f"{address.name} {self._greet(address.model)}"
        self._dialect = Dialect(self._wire, address.model)
        self._inbox: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._open: dict[str, _Asked] = {}
        self._lock = threading.RLock()  # a reply may cancel
        self._computed, self._working, self._closed = 0, parallel, False
        self._threads = [threading.Thread(target=self._work, name=self.name, daemon=True) for _ in range(parallel)]
        for thread in self._threads:
            thread.start()

    @property
    def context(self) -> int:
        """What any model served today holds: servers do not say."""
        return _CONTEXT

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server was found not to do so far, and what is done instead."""
        return tuple(f"{self.name}: {note}" for note in self._dialect.abilities.notes)

    def prepare(self, request: Request) -> Prepared:
        """Put the request as the server can answer it. The first of a kind asks the server whether it can.

        Raises:
            ModelError: it does not say.
        """
        content = self._dialect.content(request)
        return Prepared(request, readable(content), content)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Queue for the threads, in the order asked."""
        for key, prepared in asked:
            one = _Asked(key, prepared, reply, threading.Event())
            with self._lock:
                self._open[key] = one
            self._inbox.put(one)

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Drop what is unanswered. What the server already works on ends there, unheard."""
        with self._lock:
            for key in list(self._open) if keys is None else keys:
                if key in self._open:
                    self._open.pop(key).cancelled.set()

    def count(self, prompt: Prompt) -> int:
        """An estimate, one token for every four bytes of UTF-8, rounded up: the tokenizer is the server's."""
        if isinstance(prompt, Chat):
            text = "".join(message.text for message in prompt.messages) + prompt.lead
        else:
            text = prompt.text
        return math.ceil(len(text.encode()) / _BYTES_PER_TOKEN)

    def computed_tokens(self) -> int:
        """Tokens read and written as the server reports them, those it had in a cache included."""
        return self._computed

    def close(self) -> None:
        """Stop the threads; one that waits for the server stops when that answers. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.cancel()
        for _ in self._threads:
            self._inbox.put(None)
        deadline = time.monotonic() + _CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _greet(self, model: str) -> str:
        """What the server says of the model, where it has a list of models."""
        try:
            return read_model_entry(self._wire.get("/models"), model)
        except RequestFailed as error:
            if error.status is not None and error.status < 500 and error.status not in (401, 403):
                return ""
            self._wire.close()
            if error.status is not None:
                raise
            raise ModelError(f"{error}; or start one: llama-server, Ollama, LM Studio, vLLM") from None

    def _work(self) -> None:
        """One thread: take, ask, reply. The last to leave closes the connections, so that none is closed in use."""
        while (asked := self._inbox.get()) is not None:
            if asked.cancelled.is_set():
                continue
            completion = self._complete(asked)
            with self._lock:
                self._computed += completion.computed_tokens
                if not asked.cancelled.is_set():
                    del self._open[asked.key]
                    asked.reply(asked.key, completion)
        with self._lock:
            self._working -= 1
            if not self._working:
                self._wire.close()

    def _complete(self, asked: _Asked) -> Completion:
        started, prepared = time.perf_counter(), asked.prepared
        try:
            found = self._dialect.answer(asked.key, prepared.request, prepared.content, asked.cancelled)
        except ModelError as error:
            found = Completion(key=asked.key, error=str(error))
        return replace(found, seconds=time.perf_counter() - started)
