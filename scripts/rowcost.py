#!/usr/bin/env python3
"""What a row costs: rows a second by the length of its context, by the cells in use, and with and without determinism.

    scripts/rowcost.py                       SmolLM2-135M as it is; about 3 minutes on 2 cores
    scripts/rowcost.py --file X.gguf         another file, such as a layout that tuning made

Each figure is the best of three batches of 252 rows, ends of 12 tokens after one shared beginning, as scoring makes
them. `resting` cells hold a text that no row belongs to: attention looks at them all the same. This is why bare
llama_decode on an empty cache (the limit of scripts/bench.py) is out of reach for work with long contexts, and why
resting beginnings are kept outside the cache. Prints a Markdown table.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from contenders import cores

from engine.inference.local.context import Ids, LlamaContext
from engine.inference.local.determinism import deterministic_shape
from engine.inference.local.llama import LlamaModel
from engine.inference.local.shape import Shape
from engine.inference.models import find_model

_BEGINNINGS = (0, 200, 700)
_RESTING = (0, 1500, 3000)
_END, _ENDS, _REPETITIONS = 12, 21, 3
_SHARED, _OTHER = 200, 201  # sequences


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a GGUF file; by default the model's own")
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    model = LlamaModel(options.file or find_model(options.model, Path()).path)
    fast = Shape(8192, 512, cores())
    print("| context | resting | throughput, rows/s | deterministic, rows/s |\n|---|---|---|---|")
    for beginning in _BEGINNINGS:
        for resting in _RESTING if beginning == _BEGINNINGS[1] else (0,):
            found = [_rows_per_s(model, shape, beginning, resting) for shape in (fast, deterministic_shape(fast, 2))]
            print(f"| {beginning} | {resting} | {found[0]:.0f} | {found[1]:.0f} |", flush=True)
    return 0


def _rows_per_s(model: LlamaModel, shape: Shape, beginning: int, resting: int) -> float:
    """Rows a second of the fastest batch."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(100, 40_000, beginning + resting + _END * _ENDS).astype(np.int32)
    context = LlamaContext(model, shape)
    try:
        _fill(context, tokens[:resting], _OTHER)
        _fill(context, tokens[resting : resting + beginning], _SHARED)
        return max(_batch(context, tokens[-_END * _ENDS :], beginning) for _ in range(_REPETITIONS))
    finally:
        context.close()


def _fill(context: LlamaContext, tokens: Ids, sequence: int) -> None:
    for start in range(0, len(tokens), context.batch_rows):
        part = tokens[start : start + context.batch_rows]
        context.add(part, start, np.array([sequence], dtype=np.int32), wants_logits=False)
        context.decode()


def _batch(context: LlamaContext, ends: Ids, beginning: int) -> float:
    for number in range(_ENDS):
        if beginning:
            context.share(_SHARED, number, beginning)
        part = ends[number * _END : (number + 1) * _END]
        context.add(part, beginning, np.array([number], dtype=np.int32), wants_logits=True)
    started = time.perf_counter()
    context.decode()
    seconds = time.perf_counter() - started
    for number in range(_ENDS):
        context.drop(number)
    return len(ends) / seconds


if __name__ == "__main__":
    sys.exit(main())
