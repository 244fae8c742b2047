"""Retrieval as a service: searches in indexes by name, and the nearest of some texts.

Indexes lie in the folder `indexes`; they and their embedders are opened when they are first asked for. An answer that
the store knows needs no embedder.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import LocalgradError
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Nearest, Passage, Request, Search
from engine.retrieval.embedder import DEFAULT_EMBEDDER, Embedder
from engine.retrieval.index import Index, open_index
from engine.retrieval.nearest import NearestTexts, pool_digest
from engine.retrieval.opening import embedder_weights, open_embedder
from engine.retrieval.recipe import INDEXES, read_recipe, recipe_path


class RetrievalService:
    """Answers Search and Nearest. Paths start from `folder`; indexes are those in `folder`/indexes."""

    name = "retrieval"
    identity = "retrieval 1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / INDEXES
        self._indexes: dict[str, Index] = {}
        self._embedders: dict[str, Embedder] = {}
        self._nearest = NearestTexts(lambda: self._embedder(DEFAULT_EMBEDDER))
        self._nearest_sha256 = ""

    def index(self, name: str) -> Index:
        """An index by name, opened once.

        Raises:
            UsageError, ContentError: it is absent, not built or damaged.
        """
        if name not in self._indexes:
            self._indexes[name] = open_index(name, self._folder)
        return self._indexes[name]

    def prepare(self, request: Request) -> Prepared:
        """A search is keyed by what the index holds, not by its name; the nearest of texts by a hash of them.

        Raises:
            UsageError, ContentError: the index is absent, not built or damaged.
            ModelMissing, ModelError: the embedder's weights are not on this machine or not those of the manifest.
        """
        assert isinstance(request, Search | Nearest)  # the role is its own
        content = {"query": request.query, "k": request.k}
        if isinstance(request, Nearest):
            self._nearest_sha256 = self._nearest_sha256 or embedder_weights(DEFAULT_EMBEDDER, self._folder)[1]
            content |= {"kind": "nearest", "pool": pool_digest(request.texts), "order": request.order}
            return Prepared(request, request.query, content | {"embedder": self._nearest_sha256})
        fingerprint = self.index(request.index).manifest.fingerprint
        content |= {"kind": "search", "index": fingerprint, "mode": request.mode, "threshold": request.threshold}
        return Prepared(request, request.query, content)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Answer in the calling thread; requests of one kind are embedded and searched together."""
        groups: dict[Search | tuple[str, ...], list[tuple[str, Request]]] = {}
        for key, prepared in asked:
            request = prepared.request
            assert isinstance(request, Search | Nearest)  # prepare made it of one
            alike = request.texts if isinstance(request, Nearest) else replace(request, query="")
            groups.setdefault(alike, []).append((key, request))
        for alike, keyed in groups.items():
            try:
                found = self._found(alike, [request for _, request in keyed])
            except LocalgradError as error:
                for key, _ in keyed:
                    reply(key, Completion(error=str(error)))
            else:
                for (key, _), passages in zip(keyed, found, strict=True):
                    reply(key, Completion(passages=tuple(passages)))

    def _found(self, alike: Search | tuple[str, ...], requests: Sequence[Request]) -> Sequence[Sequence[Passage]]:
        """Passages for requests that differ in their query alone, or that ask for the nearest of the same texts."""
        if not isinstance(alike, Search):
            return self._nearest.find(alike, [request for request in requests if isinstance(request, Nearest)])
        embedder = None
        if alike.mode != "lexical":
            embedder = self._embedder(read_recipe(recipe_path(alike.index, self._folder)).embedder)
        queries = [request.query for request in requests if isinstance(request, Search)]
        return self.index(alike.index).search(queries, embedder, alike.k, alike.mode, alike.threshold)

    def _embedder(self, name: str) -> Embedder:
        if name not in self._embedders:
            self._embedders[name] = open_embedder(name, self._folder)
        return self._embedders[name]

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Nothing is ever unfinished."""

    def close(self) -> None:
        """Let go of indexes, texts and embedders."""
        self._indexes.clear()
        self._nearest.clear()
        for embedder in self._embedders.values():
            embedder.close()
        self._embedders.clear()
