"""The wire to a server: one JSON request, asked again with growing delays while there is hope.

It knows HTTP and nothing of models. Nothing is taken from the environment (no proxy, no netrc), no redirect is
followed, and delays have no random part, so that two runs wait alike.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any

import httpx

from engine.errors import ModelError
from engine.inference.remote.address import Address

_MAX_REPLY_BYTES = 64_000_000
_PASSING = (408, 429)
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request is waited for, and how often it is asked again.

    Delays double from `delay_s`. `total_s` is for one try; it is generous, since a request may queue in the server. A
    Retry-After in seconds is honoured up to `longest_delay_s`; one that is a date is not read.
    """

    tries: int = 4
    delay_s: float = 0.5
    longest_delay_s: float = 30.0
    connect_s: float = 5.0
    total_s: float = 300.0


class RequestFailed(ModelError):
    """A request got no usable answer. `status` is the last HTTP status, None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Wire:
    """A client of one server, for many threads."""

    def __init__(self, address: Address, patience: Patience, connections: int) -> None:
        """Raises ModelError where the address is none that HTTP can use."""
        self.url, self._patience = address.url, patience
        try:
            self._client = httpx.Client(
                base_url=f"{address.url}/",
                auth=httpx.BasicAuth(address.user, address.password) if address.user or address.password else None,
                headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
                timeout=httpx.Timeout(patience.total_s, connect=patience.connect_s),
                limits=httpx.Limits(max_connections=connections),
                follow_redirects=False,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise ModelError(f"{address.url}: not a usable address: {error}") from None

    def get(self, path: str) -> bytes:
        """A document, asked for once."""
        return self._ask("GET", path, b"", 1, Event())

    def post(self, path: str, body: Mapping[str, Any], stopped: Event | None = None) -> bytes:
        """The answer to a JSON body. Setting `stopped` ends the waiting between two tries.

        Raises:
            RequestFailed: refused, or no answer after all tries.
        """
        return self._ask("POST", path, json.dumps(body).encode(), self._patience.tries, stopped or Event())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, content: bytes, tries: int, stopped: Event) -> bytes:
        for number in range(tries):
            delay_s, status = self._patience.delay_s * 2**number, None
            try:
                response, answer = self._once(method, path, content)
            except httpx.TimeoutException as error:
                within = self._patience.connect_s if isinstance(error, httpx.ConnectTimeout) else self._patience.total_s
                what = f"no answer within {within:g} s"
                hint = "see whether the server still works, lower `runtime: parallel`, or take a smaller model"
            except httpx.HTTPError as error:
                what = f"the connection failed ({_shown(str(error)) or type(error).__name__})"
                hint = "see whether the server still runs"
            else:
                status = response.status_code
                if status == HTTPStatus.OK:
                    return answer
                what = f"the server answered {status} {response.reason_phrase}".rstrip()
                if not (status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
                    raise RequestFailed(f"{self.url}{path}: {what}: {_hint(status, answer)}", status)
                hint = f"{_shown(_message(answer))}; see its log, or lower `runtime: parallel`".lstrip("; ")
                delay_s = _asked_delay_s(response) or delay_s
            if number + 1 < tries and stopped.wait(min(delay_s, self._patience.longest_delay_s)):
                break
        raise RequestFailed(f"{self.url}{path}: {what}{f' in {tries} tries' if tries > 1 else ''}: {hint}", status)

    def _once(self, method: str, path: str, content: bytes) -> tuple[httpx.Response, bytes]:
        """One try. httpx limits the wait for each piece of an answer; the clock here limits them together."""
        deadline, answer = time.monotonic() + self._patience.total_s, bytearray()
        with self._client.stream(method, path.lstrip("/"), content=content) as response:
            for piece in response.iter_bytes():
                answer += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow", request=response.request)
                if len(answer) > _MAX_REPLY_BYTES:
                    raise RequestFailed(f"{self.url}{path}: an answer of more than {_MAX_REPLY_BYTES:,} bytes")
        return response, bytes(answer)


def _asked_delay_s(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say."""
    asked = response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def _hint(status: int, answer: bytes) -> str:
    """What the server says about a refusal, else what usually helps."""
    if 300 <= status < 400:
        return "redirects are not followed, give the address that it leads to"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "give the credentials in the address, http://user:password@host"
    usual = "see whether the address and the model's name are right"
    return _shown(_message(answer)) or usual


def _message(answer: bytes) -> str:
    """The words in an error body: `error.message` where there is one, else the whole of it."""
    try:
        body = json.loads(answer)
        error = body["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        return answer.decode("utf-8", "replace")


def _shown(text: str) -> str:
    """Foreign text in one line, cut, and without half characters that no store takes."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
