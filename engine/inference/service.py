"""The seam between flows and whatever answers them: the protocol that models and all other services share.

A service answers the requests of its roles. What it is asked becomes a call in the store, keyed by its identity and by
all that changes the answer, so that the same is never done twice.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.records import Completion, Request

Reply = Callable[[str, Completion], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be keyed and asked: its prompt as it will be read, and all that changes the answer."""

    request: Request
    prompt: str
    content: dict[str, Any]


class Service(Protocol):
    """Answers requests, many at a time. `identity` names everything about it that changes an answer."""

    identity: str
    name: str

    def prepare(self, request: Request) -> Prepared:
        """Say what will be asked. Cheap; called for cached requests too.

        Raises:
            LocalgradError: nothing can ever be asked of what the request names, such as an index that is not there.
        """

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Start answering keyed requests; `reply(key, completion)` is called once for each, from any thread.

        A request that cannot be answered gets a completion with an `error`.
        """

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Drop what is not answered yet, all of it or what these keys name; no reply comes for it.

        With keys it does not wait, so replies that are on their way may still come. Unknown keys are passed over.
        """

    def close(self) -> None:
        """Free what is held. Closing twice is harmless."""
