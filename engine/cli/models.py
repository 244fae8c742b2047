"""localgrad models: the models known by name, and those found in the local caches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from engine.cli import terminal
from engine.inference.models import KnownModel, cached_models, manifest, user_manifest


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(as_json: bool) -> int:
    """List models. Any path to a .gguf file is a model name too."""
    rows = [_known(entry) for entry in manifest().values()]
    rows += [
        {"name": name, "role": "", "present": True, "path": str(path), "package": None, "licence": ""}
        for name, path in cached_models()
    ]
    if as_json:
        terminal.print_result({"models": rows, "user_manifest": str(user_manifest())})
    else:
        terminal.table(
            ["name", "role", "here", "licence", "where"],
            [
                [row["name"], row["role"], "yes" if row["present"] else "no", row["licence"], _where(row)]
                for row in rows
            ],
        )
        terminal.say(f"your own models go into {user_manifest()}")
    return 0


def _known(entry: KnownModel) -> dict[str, Any]:
    path = entry.locate()
    return {
        "name": entry.name,
        "role": entry.role,
        "present": path is not None,
        "path": str(path) if path else f"not here: {entry.install or entry.file}",
        "package": entry.package,
        "licence": entry.licence,
    }


def _where(row: Mapping[str, Any]) -> str:
    """Where the file lies, as short as it can be said: a package's folder is long and says little."""
    if row["present"] and row["package"]:
        return f"package {row['package']}"
    return terminal.nearby(Path(row["path"])) if row["present"] else str(row["path"])
