"""The name of a call: a hash over everything that can change its answer, and nothing that cannot."""

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spare white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def call_key(model: str, request: dict[str, Any]) -> str:
    """40 hexadecimal digits for one request to one model.

    `model` is the backend's identity (file hash, runtime build, numerics); `request` the rendered prompt with every
    setting that changes the answer.
    """
    return hashlib.blake2b(f"{model}\n{canonical(request)}".encode(), digest_size=20).hexdigest()


def digest(text: str) -> str:
    """A short checksum, so that a damaged row is noticed and computed again."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def seed_of(*parts: str | int) -> int:
    """A 64-bit seed made from names and numbers, independent of the order in which seeds are asked for."""
    return int.from_bytes(hashlib.blake2b(canonical(list(parts)).encode(), digest_size=8).digest(), "big")
