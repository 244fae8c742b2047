"""Cost: what one example may cost at most, before anything is run.

Tokens are estimated from characters, four each, as in English prose; they count as asked, whatever the model has
computed before and need not compute again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Model calls, tokens read and tokens written; `gives` are the most tokens of each output field, where known.

    `longest` are the most tokens of a single call, read and written; where that is not given, those of the mean one.
    Not `bounded` is what has a part that says nothing of its cost: it may be more.
    """

    calls: int = 0
    read: int = 0
    written: int = 0
    gives: Mapping[str, int] = field(default_factory=dict)
    bounded: bool = True
    longest: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.longest and self.calls:
            object.__setattr__(self, "longest", -(-(self.read + self.written) // self.calls))

    def __add__(self, other: "Cost") -> "Cost":
        """Both; of a field that both give, the longer."""
        gives = {name: max(size, self.gives.get(name, 0)) for name, size in other.gives.items()}
        totals = (self.calls + other.calls, self.read + other.read, self.written + other.written)
        longest = max(self.longest, other.longest)
        return Cost(*totals, {**self.gives, **gives}, self.bounded and other.bounded, longest)

    def __mul__(self, times: int) -> "Cost":
        """So many times the same."""
        totals = (self.calls * times, self.read * times, self.written * times)
        return Cost(*totals, self.gives, self.bounded, self.longest)

    def most(self, other: "Cost") -> "Cost":
        """The larger of each: what one of the two costs at most."""
        both = self + other
        totals = (max(self.calls, other.calls), max(self.read, other.read), max(self.written, other.written))
        return Cost(*totals, both.gives, both.bounded, both.longest)


def tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text) // _CHARACTERS_A_TOKEN)
