"""Cutting documents into chunks: windows of the embedder's own tokens that overlap."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.retrieval.documents import Document
from engine.store.keys import digest

Spans = Callable[[str], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part `text[start:end]` of a document. `id` is the document's, with `#` and a number where there are more."""

    id: str
    document: str
    title: str
    start: int
    end: int
    text: str

    @property
    def embedded(self) -> str:
        """What is embedded and searched by words: the title helps both."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @property
    def fingerprint(self) -> str:
        """A hash of what is embedded: chunks with the same have the same vector."""
        return digest(self.embedded)


def cut(documents: Sequence[Document], spans: Spans, size: int, overlap: int, longest: int) -> Iterator[Chunk]:
    """Chunks of at most `size` tokens, each beginning `overlap` tokens before the end of the one before.

    `spans` gives the character range of every token of a text, `longest` is how many tokens the embedder takes: chunks
    are smaller where they would not fit into it with their title. A document without a word has no chunk.
    """
    for document in documents:
        tokens = spans(document.text)
        beside = len(spans(document.title)) + 1 if document.title else 0
        room = max(1, min(size, max(longest - beside, longest // 2)))
        shared = min(overlap, room // 2)
        starts = range(0, max(1, len(tokens) - shared), room - shared) if tokens else range(0)
        for number, first in enumerate(starts):
            start, end = _trimmed(document.text, tokens[first][0], tokens[min(first + room, len(tokens)) - 1][1])
            if start < end:
                name = document.id if len(starts) == 1 else f"{document.id}#{number}"
                yield Chunk(name, document.id, document.title, start, end, document.text[start:end])


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A range without the white space at its ends, which some vocabularies count to the words."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
