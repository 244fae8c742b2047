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


def cut(documents: Sequence[Document], spans: Spans, size: int, overlap: int) -> Iterator[Chunk]:
    """Chunks of at most `size` tokens, each beginning `overlap` tokens before the end of the one before.

    `spans` gives the character range of every token of a text. A document without a token has no chunk.
    """
    for document in documents:
        tokens = spans(document.text)
        starts = range(0, max(1, len(tokens) - overlap), size - overlap) if tokens else range(0)
        for number, first in enumerate(starts):
            last = min(first + size, len(tokens)) - 1
            start, end = tokens[first][0], tokens[last][1]
            name = document.id if len(starts) == 1 else f"{document.id}#{number}"
            yield Chunk(name, document.id, document.title, start, end, document.text[start:end])
