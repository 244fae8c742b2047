"""localgrad models: the models known by name, and those found in the local caches."""

from typing import Any

import click

from engine.cli import terminal
from engine.inference.models import cached_models, manifest, user_manifest


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(as_json: bool) -> int:
    """List models. Any path to a .gguf file is a model name too."""
    rows: list[dict[str, Any]] = []
    for name, entry in manifest().items():
        path = entry.locate()
        says = str(path) if path else f"not here: {entry.install or entry.file}"
        rows.append(
            {"name": name, "role": entry.role, "present": path is not None, "path": says, "licence": entry.licence}
        )
    rows += [
        {"name": name, "role": "", "present": True, "path": str(path), "licence": ""} for name, path in cached_models()
    ]
    if as_json:
        terminal.print_result({"models": rows, "user_manifest": str(user_manifest())})
    else:
        terminal.table(
            ["name", "role", "here", "licence", "where"],
            [
                [row["name"], row["role"], "yes" if row["present"] else "no", row["licence"], row["path"]]
                for row in rows
            ],
        )
        terminal.say(f"your own models go into {user_manifest()}")
    return 0
