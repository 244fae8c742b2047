"""Answers: when two texts give the same answer."""

import re
from decimal import Decimal

from engine.tasks.metrics import normalized

_AMOUNT = re.compile(r"([-+]?)[$€£¥]? ?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)((?:e[-+]?\d{1,3})?)\.?")


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
