"""How much one optimization may spend, as written in a task file: `10m`, `800calls` or `2Mtok`."""

import re
from dataclasses import dataclass
from typing import Literal

from engine.errors import ContentError

Unit = Literal["seconds", "calls", "tokens"]

_FORM = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>s|m|h|calls?|tok|tokens|ktok|mtok)", re.IGNORECASE)
_SCALE: dict[str, tuple[float, Unit]] = {
    "s": (1, "seconds"),
    "m": (60, "seconds"),
    "h": (3600, "seconds"),
    "call": (1, "calls"),
    "calls": (1, "calls"),
    "tok": (1, "tokens"),
    "tokens": (1, "tokens"),
    "ktok": (1_000, "tokens"),
    "mtok": (1_000_000, "tokens"),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of one unit. Calls and tokens count what is asked for, cached or not, so a rerun ends alike."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `30s`, `10m`, `1.5h`, `800calls`, `300ktok` or `2Mtok`.

        Raises:
            ContentError: the text has another form or asks for nothing.
        """
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise ContentError(f"budget {text!r} is not understood: write it like 30s, 10m, 800calls or 2Mtok")
        scale, unit = _SCALE[found["unit"].lower()]
        amount = float(found["amount"]) * scale
        if amount <= 0:
            raise ContentError(f"budget {text!r} leaves nothing to spend")
        return cls(amount, unit)

    def __str__(self) -> str:
        if self.unit == "seconds":
            return f"{self.amount / 60:g}m" if self.amount >= 60 else f"{self.amount:g}s"
        return f"{self.amount:g} {self.unit}"
