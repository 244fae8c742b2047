"""GBNF read, sampled and matched, independently of the code that writes it."""

import random
import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'\s+|(?P<rule>[a-zA-Z][a-zA-Z0-9-]*)\s*::=|(?P<name>[a-zA-Z][a-zA-Z0-9-]*)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<set>\[(?:[^\]\\]|\\.)*\])|(?P<times>[?*+]|\{\d*,?\d*\})|(?P<mark>[()|])",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))|(.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]"}


@dataclass
class Gbnf:
    """A grammar as nested tuples: ('text', str), ('set', negated, ranges), ('seq', …), ('alt', …), ('rep', …)."""

    source: str
    rules: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bodies: dict[str, list[tuple[str, str]]] = {}
        at = 0
        while at < len(self.source):
            found = _TOKEN.match(self.source, at)
            assert found, f"no GBNF at {self.source[at : at + 20]!r}"
            at = found.end()
            if found["rule"]:
                assert found["rule"] not in bodies, "a rule stands twice"
                bodies[found["rule"]] = []
            elif found.lastgroup:
                bodies[list(bodies)[-1]].append((found.lastgroup, found[found.lastgroup]))
        for name, tokens in bodies.items():
            self.rules[name] = _alternatives(tokens)
            assert not tokens, f"left over in {name}: {tokens}"

    def sample(self, chance: random.Random) -> str:
        """A random text of the grammar; now and then a repetition runs to its limit."""
        return self._sample(self.rules["root"], chance)

    def _sample(self, node: Any, chance: random.Random) -> str:
        match node:
            case ("text", text):
                return str(text)
            case ("set", ranges):
                low, high = chance.choice(ranges)
                return chr(
                    chance.choice(
                        (low, high, chance.randint(low, high), chance.randint(low, min(high, max(low, 0x7E))))
                    )
                )
            case ("seq", *parts):
                return "".join(self._sample(part, chance) for part in parts)
            case ("alt", *options):
                return self._sample(chance.choice(options), chance)
            case ("rep", item, low, high):
                most = low + 5 if high is None else high
                count = most if chance.random() < 0.05 else chance.randint(low, min(most, low + 4))
                return "".join(self._sample(item, chance) for _ in range(count))
        return self._sample(self.rules[node[1]], chance)

    def admits(self, text: str) -> bool:
        """Whether the whole text is in the grammar."""
        return len(text) in self._ends(self.rules["root"], text, frozenset({0}))

    def _ends(self, node: Any, text: str, starts: frozenset[int]) -> frozenset[int]:
        match node:
            case ("text", word):
                return frozenset(s + len(word) for s in starts if text[s : s + len(word)] == word)
            case ("set", ranges):
                inside = (s for s in starts if s < len(text) and any(a <= ord(text[s]) <= b for a, b in ranges))
                return frozenset(s + 1 for s in inside)
            case ("seq", *parts):
                for part in parts:
                    starts = self._ends(part, text, starts)
                return starts
            case ("alt", *options):
                return frozenset().union(*(self._ends(option, text, starts) for option in options))
            case ("rep", item, low, high):
                found = starts if low == 0 else frozenset[int]()
                count = 0
                while starts and count < (len(text) + low + 1 if high is None else high):
                    starts, count = self._ends(item, text, starts), count + 1
                    found = found | starts if count >= low else found
                return found
        return self._ends(self.rules[node[1]], text, starts)


def _alternatives(tokens: list[tuple[str, str]]) -> Any:
    options = [_sequence(tokens)]
    while tokens and tokens[0] == ("mark", "|"):
        tokens.pop(0)
        options.append(_sequence(tokens))
    return options[0] if len(options) == 1 else ("alt", *options)


def _sequence(tokens: list[tuple[str, str]]) -> Any:
    parts: list[Any] = []
    while tokens and tokens[0] not in (("mark", "|"), ("mark", ")")):
        kind, written = tokens.pop(0)
        if kind == "times":
            # llama.cpp repeats a text of several characters as a whole; the writer must not lean on that
            assert parts[-1][0] != "text" or len(parts[-1][1]) == 1
            parts[-1] = ("rep", parts[-1], *_limits(written))
        elif kind == "mark":
            parts.append(_alternatives(tokens))
            assert tokens.pop(0) == ("mark", ")")
        elif kind == "name":
            parts.append(("ref", written))
        else:
            characters = [_character(found) for found in _ESCAPE.finditer(written[1:-1])]
            parts.append(("text", "".join(c for c, _ in characters)) if kind == "text" else ("set", _set(characters)))
    assert parts, "an empty alternative"
    return parts[0] if len(parts) == 1 else ("seq", *parts)


def _limits(written: str) -> tuple[int, int | None]:
    if written in "?*+":
        return {"?": (0, 1), "*": (0, None), "+": (1, None)}[written]
    low, comma, high = written[1:-1].partition(",")
    assert max(int(low), int(high or 0)) <= 2000
    return int(low), int(high) if high else None if comma else int(low)


def _character(found: re.Match[str]) -> tuple[str, bool]:
    """The character, and whether it was written as it is."""
    number = found[1] or found[2] or found[3]
    if number:
        return chr(int(number, 16)), False
    return (_NAMED[found[4]], False) if found[4] else (found[5], True)


def _set(characters: list[tuple[str, bool]]) -> list[tuple[int, int]]:
    assert characters, "an empty set"
    assert characters[0] != ("^", True), "negated sets are not written"
    ranges = []
    while characters:
        low, _ = characters.pop(0)
        high = low
        if len(characters) > 1 and characters[0] == ("-", True):
            characters.pop(0)
            high, _ = characters.pop(0)
        assert low <= high
        ranges.append((ord(low), ord(high)))
    return ranges
