"""Retrieve: passages of an index that answer a query. Attention: the query against keys, the best k values returned.

The query is the layer's main input, the last; several inputs are joined by line ends, as for a second hop that looks
with what the first one found (multi-hop retrieval; Trivedi 2023, IRCoT).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from engine.flows import Flow, ask
from engine.program.cost import Cost
from engine.program.critique import Gradients
from engine.program.layer import Layer, LayerResult, Outside
from engine.program.parameters import Choice, Number, Parameter
from engine.records import Passage, RetrievalMode, Search, Step

_PASSAGE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Retrieve(Layer):
    """The `k` best passages of an index, as one text, numbered.

    Passages with a score below `threshold` are left out; 0 keeps all. Scores are cosines (dense), BM25 scores (lexical)
    or sums of 1 / (60 + rank) (hybrid).
    """

    index: str
    output: str = "passages"
    k: int = 4
    mode: RetrievalMode = "hybrid"
    threshold: float = 0.0

    kind: ClassVar[str] = "retrieve"

    @property
    def summary(self) -> str:
        return f"{self.k} of {self.index}, {self.mode}" + (f", from {self.threshold:g}" if self.threshold else "")

    @property
    def outside(self) -> tuple[Outside, ...]:
        return (Outside("index", self.index),)

    def parameters(self, inputs: tuple[str, ...]) -> dict[str, Parameter]:
        """k, mode and threshold."""
        return {
            "k": Number(self.k, 1, 50, whole=True),
            "mode": Choice(self.mode, ("hybrid", "dense", "lexical")),
            "threshold": Number(self.threshold, 0, 1000),
        }

    def flow(self, inputs: Mapping[str, str]) -> Flow[LayerResult]:
        """One search."""
        query = "\n".join(text for text in inputs.values() if text.strip())
        asked = Search(self.index, query, self.k, self.mode, self.threshold or None)
        completion = yield from ask(asked)
        if completion.passages is None:
            return LayerResult(error=completion.error)
        return LayerResult({self.output: written(completion.passages)}, passages=completion.passages)

    def backward(self, step: Step, said: Sequence[str], wanted: tuple[str, ...]) -> Flow[Gradients]:
        """What was said of the passages is said of the queries that found them; there is no text to change here."""
        yield from ()
        return Gradients(
            inputs={name: [f"It found passages of which was said: {text}" for text in said] for name in wanted}
        )

    def cost(self, inputs: Mapping[str, int]) -> Cost:
        """No call."""
        return Cost(gives={self.output: self.k * _PASSAGE_TOKENS})


def written(passages: Sequence[Passage]) -> str:
    """Passages as a prompt shows them: numbered, each behind its title."""
    return "\n".join(
        f"[{number}] {passage.title}: {passage.text}" if passage.title else f"[{number}] {passage.text}"
        for number, passage in enumerate(passages, 1)
    )
