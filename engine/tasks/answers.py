"""When two answers are the same, as metrics and votes see it."""

import re
from collections.abc import Callable
from decimal import Decimal

_AMOUNT = re.compile(r"([-+]?)[$€£¥]? ?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)((?:e[-+]?\d{1,3})?)\.?")


def normalized(text: str) -> str:
    """Lower case, white space folded: what exact_match compares."""
    return " ".join(text.casefold().split())


def answer_key(text: str) -> str:
    """What texts with the same answer have in common: the text without case and white space, or the number it is.

    So `42`, `42.0` and `$42` are the same, and so are `1,000` and `1e3`; `42%` is another. Numbers are told apart by
    their first 28 digits.
    """
    folded = normalized(text)
    amount = _AMOUNT.fullmatch(folded)
    if not amount:
        return folded
    sign, digits, exponent = amount.groups()
    number = Decimal(sign + digits.replace(",", "") + exponent).normalize()
    return str(number if number else Decimal(0))


def same_value(found: object, wanted: object, read: Callable[[str], str] = str) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, but true is not 1, at whatever depth; texts as `read` gives them."""
    pairs = [(found, wanted)]
    while pairs:  # no recursion: JSON may be nested more deeply than Python calls may be
        one, other = pairs.pop()
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            pairs += [(one[name], other[name]) for name in one]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            pairs += zip(one, other, strict=True)
        elif isinstance(one, str) and isinstance(other, str):
            if read(one) != read(other):
                return False
        elif isinstance(one, dict | list) or isinstance(one, bool) != isinstance(other, bool) or one != other:
            return False
    return True
