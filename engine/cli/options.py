"""Options that many commands share, handed to them as one record."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Common:
    """Where the store is, if it was named, and whether the result is wanted as JSON."""

    store: str | None
    as_json: bool


def common_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add --store and --json; the command receives them as `common`."""

    @click.option("--store", help="The store file; by default .localgrad/store.db beside the task.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(command)
    def wrapped(store: str | None, as_json: bool, **given: Any) -> int:
        return command(common=Common(store, as_json), **given)

    return wrapped
