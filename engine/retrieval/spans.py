"""Which characters of a text each token stands for, from the bytes of the tokens' pieces.

Most vocabularies write a text out again byte by byte, perhaps with a space before it. Those of BERT and its like change
case, drop accents and know no other alphabets; there a word is told by its white space, and its tokens by its letters.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Span = tuple[int, int]
Pieces = Callable[[str], list[bytes]]

_WORD = re.compile(r"\S+")


def token_spans(text: str, pieces: Pieces) -> list[Span]:
    """The character range of every token of a text, in order; tokens that stand for no character are left out.

    `pieces` tokenizes: the bytes of every token of a text. A character whose bytes lie in several tokens belongs to
    each of them, so that every range is a whole number of characters.
    """
    found = pieces(text)
    raw, written = text.encode("utf-8", "surrogatepass"), b"".join(found)
    if written == raw or written == b" " + raw:
        return _by_bytes(text, found, len(raw) - len(written))
    return [span for word in _WORD.finditer(text) for span in _in_word(word, pieces)]


def _by_bytes(text: str, pieces: Sequence[bytes], place: int) -> list[Span]:
    """The ranges of pieces that write the text out, the first of them beginning at byte `place`."""
    lengths = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    owner = np.repeat(np.arange(len(text)), lengths)  # the character that each byte belongs to
    spans = []
    for piece in pieces:
        first, place = max(place, 0), place + len(piece)
        if place > first:
            spans.append((int(owner[first]), int(owner[place - 1]) + 1))
    return spans


def _in_word(word: re.Match[str], pieces: Pieces) -> Iterator[Span]:
    """The ranges of a word's tokens: by their letters, or in equal parts where these are not the word's."""
    parts = [_letters(piece.decode("utf-8", "replace")) for piece in pieces(word[0])]
    owned = [(number, letter) for number, character in enumerate(word[0]) for letter in _letters(character)]
    if all(parts) and "".join(parts) == "".join(letter for _, letter in owned):
        for first, end in itertools.pairwise(itertools.accumulate(map(len, parts), initial=0)):
            yield word.start() + owned[first][0], word.start() + owned[end - 1][0] + 1
        return
    length, count = len(word[0]), len(parts)
    for number in range(count):
        first = length * number // count
        yield word.start() + first, word.start() + max(first + 1, length * (number + 1) // count)


def _letters(text: str) -> str:
    """What stays of a text where vocabularies change it: without white space, case, accents and control characters."""
    letters = (letter for character in text for letter in unicodedata.normalize("NFD", character.casefold()))
    return "".join(
        letter for letter in letters if not letter.isspace() and unicodedata.category(letter) not in ("Mn", "Cc", "Cf")
    )
