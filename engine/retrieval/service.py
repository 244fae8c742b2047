"""Retrieval as a service: searches in indexes by name, and the nearest of some texts.

Indexes lie in the folder `indexes`; they and their embedders are opened when they are first asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import LocalgradError
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Passage, Request, Search
from engine.retrieval.embedder import Embedder, SentenceEmbedder
from engine.retrieval.index import Index, open_index
from engine.retrieval.recipe import read_recipe, recipe_path

INDEXES = "indexes"


class RetrievalService:
    """Answers Search. Paths start from `folder`; indexes are those in `folder`/indexes."""

    name = "retrieval"
    identity = "retrieval 1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / INDEXES
        self._indexes: dict[str, Index] = {}
        self._embedders: dict[str, Embedder] = {}

    def index(self, name: str) -> Index:
        """An index by name, opened once.

        Raises:
            UsageError, ContentError: it is absent, not built or damaged.
        """
        if name not in self._indexes:
            self._indexes[name] = open_index(name, self._folder)
        return self._indexes[name]

    def prepare(self, request: Request) -> Prepared:
        """A search is keyed by what the index holds, not by its name.

        Raises:
            UsageError, ContentError: the index is absent, not built or damaged.
        """
        assert isinstance(request, Search)  # the role is its own
        fingerprint = self.index(request.index).manifest.fingerprint
        content = {"kind": "search", "index": fingerprint, "query": request.query, "k": request.k}
        return Prepared(request, request.query, content | {"mode": request.mode, "threshold": request.threshold})

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Answer in the calling thread; searches of one kind are embedded and searched together."""
        groups: dict[Search, list[tuple[str, str]]] = {}
        for key, prepared in asked:
            request = prepared.request
            assert isinstance(request, Search)  # prepare made it of one
            groups.setdefault(replace(request, query=""), []).append((key, request.query))
        for alike, keyed in groups.items():
            try:
                found = self._search(alike, [query for _, query in keyed])
            except LocalgradError as error:
                for key, _ in keyed:
                    reply(key, Completion(error=str(error)))
            else:
                for (key, _), passages in zip(keyed, found, strict=True):
                    reply(key, Completion(passages=tuple(passages)))

    def _search(self, alike: Search, queries: Sequence[str]) -> list[list[Passage]]:
        embedder = None if alike.mode == "lexical" else self._embedder(alike.index)
        return self.index(alike.index).search(queries, embedder, alike.k, alike.mode, alike.threshold)

    def _embedder(self, index: str) -> Embedder:
        name = read_recipe(recipe_path(index, self._folder)).embedder
        if name not in self._embedders:
            self._embedders[name] = SentenceEmbedder(name, self._folder)
        return self._embedders[name]

    def cancel(self) -> None:
        """Nothing is ever unfinished."""

    def close(self) -> None:
        """Let go of indexes and embedders."""
        self._indexes.clear()
        self._embedders.clear()
