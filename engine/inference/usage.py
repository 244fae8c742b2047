"""What a piece of work has asked for and what it cost."""

from dataclasses import asdict, dataclass

from engine.records import Completion


@dataclass(slots=True)
class Usage:
    """Running totals. A call is one request, however many labels it scores; cached ones count as asked for.

    `prompt_tokens` and `generated_tokens` are as asked, cached or not; `computed_tokens` are the rows that
    llama_decode was given.
    """

    calls: int = 0
    cached_calls: int = 0
    failed_calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens asked for, read and written."""
        return self.prompt_tokens + self.generated_tokens

    def count(self, completion: Completion) -> None:
        """Add the tokens of one completion."""
        self.prompt_tokens += completion.prompt_tokens
        self.generated_tokens += completion.generated_tokens
        self.failed_calls += completion.error is not None

    def since(self, earlier: "Usage") -> "Usage":
        """The difference to an earlier state."""
        then = asdict(earlier)
        return Usage(**{name: value - then[name] for name, value in asdict(self).items()})

    def copy(self) -> "Usage":
        """The state as it is now."""
        return Usage(**asdict(self))
