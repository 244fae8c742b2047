"""A context of llama.cpp, on the real model: what is filled up, counted and computed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.inference.local.context import LlamaContext
from engine.inference.local.llama import LlamaModel
from engine.inference.local.shape import Shape
from engine.inference.models import find_model

pytestmark = pytest.mark.model

TEXT = "The harbour was quiet that morning, and the fishermen mended their nets while they waited for the fog to lift. "


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    loaded = LlamaModel(find_model("smollm2-135m", Path()).path)
    yield loaded
    loaded.close()


def last_logits(model: LlamaModel, shape: Shape, rows: int) -> tuple[NDArray[np.float32], LlamaContext]:
    """Logits after each of the last `rows` tokens of a text, all in one batch; the context is closed."""
    tokens = np.array(model.tokenize(TEXT * 4, special=False), dtype=np.int32)
    context, sequence = LlamaContext(model, shape), np.array([0], dtype=np.int32)
    try:
        context.add(tokens[:-rows], 0, sequence, wants_logits=False)
        context.decode()
        for number in range(rows):
            place = len(tokens) - rows + number
            context.add(tokens[place : place + 1], place, sequence, wants_logits=True)
        return context.decode().copy(), context
    finally:
        context.close()


@pytest.mark.parametrize("rows", [1, 15, 16, 40, 64])
def test_filling_a_batch_up_changes_neither_its_count_nor_its_answers(model: LlamaModel, rows: int) -> None:
    """Another kernel computes the filled one: measured 0.001 nats apart in the mean, 0.01 at most."""
    plain, _ = last_logits(model, Shape(1024, 256, 1), rows)
    filled, context = last_logits(model, Shape(1024, 256, 1, tile=64), rows)
    assert filled.shape == plain.shape == (rows, model.vocabulary)
    assert context.decoded_outputs == rows
    assert context.decoded_rows == len(model.tokenize(TEXT * 4, special=False))
    shifted = [logits - logits.max(axis=1, keepdims=True) for logits in (plain, filled)]
    first, second = (values - np.log(np.exp(values).sum(axis=1, keepdims=True)) for values in shifted)
    divergence = (np.exp(first) * (first - second)).sum(axis=1)
    assert divergence.mean() < 0.01
