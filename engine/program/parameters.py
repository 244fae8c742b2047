"""Parameters: what an optimizer may change in a program, each with its kind and its limits.

A layer keeps plain values; `Program.parameters` shows them wrapped in these records. `check` says whether a new value
is one the parameter can take and returns it in its canonical form.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ContentError
from engine.program.tools.written import read_functions
from engine.program.typed.fields import Field


@dataclass(frozen=True, slots=True)
class Demo:
    """A solved example shown in a prompt: the node's inputs and the outputs it should give, by field name."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def to_mapping(self) -> dict[str, dict[str, str]]:
        """As plain data."""
        return {"inputs": dict(self.inputs), "outputs": dict(self.outputs)}


@dataclass(frozen=True, slots=True)
class Text:
    """Words: an instruction, a description."""

    value: str
    max_chars: int = 4000

    def check(self, value: Any) -> str:
        """Text that is neither blank nor longer than `max_chars`."""
        if not isinstance(value, str) or not value.strip():
            raise ContentError(f"expected text, found {value!r}")
        if len(value) > self.max_chars:
            raise ContentError(f"text of {len(value)} characters; at most {self.max_chars} here")
        return value


@dataclass(frozen=True, slots=True)
class Source:
    """Code in Python, run in the sandbox. Whether it is right is seen when it runs.

    With `functions` it holds tools that a model calls, so that what they take must be plain; it may then be blank.
    """

    value: str
    max_chars: int = 8000
    functions: bool = False

    def check(self, value: Any) -> str:
        """Text that is neither blank nor longer than `max_chars`; or functions."""
        if self.functions and isinstance(value, str) and not value.strip():
            return ""
        text = Text(self.value, self.max_chars).check(value)
        if self.functions:
            read_functions(text)
        return text


@dataclass(frozen=True, slots=True)
class Demos:
    """Solved examples, in the order in which the prompt shows them, each with all fields of its node.

    What a demo gives for a field of `typed` is a value of its type, and is shown in its canonical form. With `nearest`
    they are a pool: an example is shown only so many, and never itself.
    """

    value: tuple[Demo, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    typed: tuple[Field, ...] = ()
    nearest: int = 0

    def check(self, value: Any) -> tuple[Demo, ...]:
        """Demos (or their mappings) with exactly the node's fields, put into the node's order."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ContentError(f"expected a list of demos, found {value!r}")
        return tuple(self._demo(item, index) for index, item in enumerate(value))

    def _demo(self, item: Any, index: int) -> Demo:
        if isinstance(item, Mapping):
            if set(item) != {"inputs", "outputs"} or not all(isinstance(part, Mapping) for part in item.values()):
                raise ContentError("a demo has exactly two mappings: inputs and outputs", (index,))
            item = Demo(dict(item["inputs"]), dict(item["outputs"]))
        if not isinstance(item, Demo):
            raise ContentError(f"expected a demo, found {item!r}", (index,))
        for given, known, side in ((item.inputs, self.inputs, "inputs"), (item.outputs, self.outputs, "outputs")):
            if set(given) != set(known):
                raise ContentError(
                    f"a demo's {side} are {', '.join(known)}, found {', '.join(given) or 'none'}", (index,)
                )
        item = Demo(item.inputs, {**item.outputs, **self._canonical(item.outputs, index)})
        for given, side in ((item.inputs, "inputs"), (item.outputs, "outputs")):
            if not all(isinstance(text, str) for text in given.values()):
                raise ContentError(f"a demo's {side} are texts", (index,))
        return Demo(
            {name: item.inputs[name] for name in self.inputs}, {name: item.outputs[name] for name in self.outputs}
        )

    def _canonical(self, outputs: Mapping[str, Any], index: int) -> dict[str, str]:
        texts = {}
        for field in self.typed:
            try:
                texts[field.name] = field.canonical(outputs[field.name])
            except ContentError as error:
                raise ContentError(f"{field.name}: {error}", (index, "outputs", field.name)) from None
        return texts


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few named options."""

    value: str
    options: tuple[str, ...]

    def check(self, value: Any) -> str:
        """One of `options`."""
        if value not in self.options:
            raise ContentError(f"expected one of {', '.join(self.options)}, found {value!r}")
        return str(value)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within limits; whole where `whole` is set."""

    value: float
    low: float
    high: float
    whole: bool = False

    def check(self, value: Any) -> float:
        """A finite number between `low` and `high`."""
        number = _finite(value)
        if number is None:
            raise ContentError(f"expected a number, found {value!r}")
        if not self.low <= number <= self.high:
            raise ContentError(f"expected a number from {self.low:g} to {self.high:g}, found {number:g}")
        if self.whole and not number.is_integer():
            raise ContentError(f"expected a whole number, found {number:g}")
        return int(number) if self.whole else number


@dataclass(frozen=True, slots=True)
class Bias:
    """One additive term per choice, in nats, on top of the choices' log-likelihoods. Empty means zero everywhere."""

    value: tuple[float, ...]
    choices: tuple[str, ...]

    def check(self, value: Any) -> tuple[float, ...]:
        """One finite number per choice, as a list in the order of the choices or a mapping by choice."""
        if isinstance(value, Mapping):
            unknown = [name for name in value if name not in self.choices]
            if unknown:
                raise ContentError(f"bias names {unknown[0]!r}, which is no choice here")
            value = [value.get(choice, 0.0) for choice in self.choices]
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ContentError(f"expected one number per choice, found {value!r}")
        if len(value) not in (0, len(self.choices)):
            raise ContentError(f"expected {len(self.choices)} numbers, one per choice, found {len(value)}")
        terms = [_finite(term) for term in value]
        if None in terms:
            raise ContentError(f"expected finite numbers, found {value!r}")
        return tuple(term for term in terms if term is not None)


@dataclass(frozen=True, slots=True)
class Notes:
    """Texts that were written down, the oldest first: at most `most`, each of at most `max_chars` characters."""

    value: tuple[str, ...]
    most: int = 64
    max_chars: int = 1000

    def check(self, value: Any) -> tuple[str, ...]:
        """Texts that are neither blank nor too long, and not too many."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ContentError(f"expected a list of texts, found {value!r}")
        for index, text in enumerate(value):
            try:
                Text("", self.max_chars).check(text)
            except ContentError as error:
                raise ContentError(f"note {index + 1}: {error}", (index,)) from None
        if len(value) > self.most:
            raise ContentError(f"{len(value)} notes; at most {self.most} here")
        return tuple(value)


def _finite(value: Any) -> float | None:
    """A finite number as a float, -0 as 0 (equal programs are written alike); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value) + 0.0
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


Parameter = Text | Source | Notes | Demos | Choice | Number | Bias
