"""When two answers are the same, as metrics see it."""

from collections.abc import Callable


def normalized(text: str) -> str:
    """Lower case, white space folded: what exact_match compares."""
    return " ".join(text.casefold().split())


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
