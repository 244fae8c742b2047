"""What running a piece of code came to: a value as JSON, or one line that says why there is none."""

import re
from dataclasses import dataclass
from typing import Literal

Limit = Literal["time", "memory", "recursion", "output"]

_LINE = 300  # characters of an error: a message may quote the whole source


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exactly one of `value` (JSON text; "null" where there was nothing to return) and `error` (one line) is given.

    `printed` is what was printed up to the end, cut at the limit. `limit` names the limit that ended the run. An end
    by time depends on the load of the machine: ask again rather than remember it.
    """

    value: str | None = None
    error: str | None = None
    printed: str = ""
    limit: Limit | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) != (self.error is None), "either a value or an error"


def one_line(text: str) -> str:
    """A message without line breaks and control characters, cut where it is long."""
    plain = re.sub(r"\s+", " ", "".join(sign if sign.isprintable() else " " for sign in text[: 4 * _LINE])).strip()
    return plain if len(plain) <= _LINE else plain[: _LINE - 1] + "…"
