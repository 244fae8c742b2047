"""localgrad layers: the layers and stock architectures there are, and their settings."""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click

import engine.program.layers  # noqa: F401 (makes the layers known)
from engine.cli import terminal
from engine.errors import UsageError
from engine.program.layer import LAYERS, Layer
from engine.program.library import ARCHITECTURES
from engine.tasks.taskfile import nearest

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "anything",
    NoneType: "nothing",
}


@click.command("layers")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(name: str | None, as_json: bool) -> int:
    """List layers and stock architectures, or say what NAME is and which settings it takes."""
    if name is None:
        body = {
            "layers": {kind: _first_line(_module_of(layer)) for kind, layer in sorted(LAYERS.items())},
            "architectures": {kind: _first_line(build) for kind, build in ARCHITECTURES.items()},
        }
        if as_json:
            terminal.print_result(body)
        else:
            for title, found in body.items():
                terminal.table([title, ""], [[kind, what] for kind, what in found.items()])
        return 0
    known = [_layer(name)] if name in LAYERS else []
    known += [_architecture(name)] if name in ARCHITECTURES else []
    if not known:
        raise UsageError(f"no layer or architecture {name!r}: {nearest(name, [*LAYERS, *ARCHITECTURES])}")
    if as_json:
        terminal.print_result(known)
    else:
        for one in known:
            terminal.say(f"{one['what']} {name}\n")
            terminal.say(one["about"])
            if one["settings"]:
                terminal.table(["setting", "what", "default"], [list(row.values()) for row in one["settings"]])
            terminal.say(one["also"])
    return 0


def _layer(name: str) -> dict[str, Any]:
    kind = LAYERS[name]
    rows = [
        _setting("outputs" if item.name == "output" else item.name, item.type, _default(item.default))
        for item in fields(kind)  # type: ignore[arg-type]  # every layer is a dataclass
    ]
    about = f"{inspect.getdoc(_module_of(kind))}\n\n{inspect.getdoc(kind)}".partition("\n\nRaises:")[0]
    return {"what": "layer", "about": about, "settings": rows, "also": "A node also has inputs; a part has not."}


def _architecture(name: str) -> dict[str, Any]:
    build = ARCHITECTURES[name]
    own = [item for item in inspect.signature(build).parameters.values() if item.kind is item.KEYWORD_ONLY]
    rows = [_setting(item.name, item.annotation, _default(item.default)) for item in own]
    also = "Other settings are those of the layer that answers: localgrad layers predict"
    return {"what": "architecture", "about": inspect.getdoc(build), "settings": rows, "also": also}


def _setting(name: str, kind: Any, default: str) -> dict[str, str]:
    return {"setting": name, "what": "names of fields" if name == "outputs" else _kind(kind), "default": default}


def _default(value: Any) -> str:
    if value in (MISSING, inspect.Parameter.empty):
        return "needed"
    if value is None or value in ("", ()):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _kind(kind: Any) -> str:
    """The type of a setting in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(_kind(option) for option in inner if option is not NoneType)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{_kind(inner[1])}, by name"
    if isinstance(kind, type) and issubclass(kind, Layer):
        return "a layer"
    return _WORDS.get(kind) or getattr(kind, "__name__", str(kind)).lower()


def _module_of(kind: type[Layer]) -> Any:
    return inspect.getmodule(kind)


def _first_line(documented: Any) -> str:
    """What something is, in its first sentence, without its name."""
    line = (inspect.getdoc(documented) or "").split("\n", 1)[0]
    name, mark, what = line.partition(": ")
    return (what if mark and " " not in name else line).split(". ", 1)[0].rstrip(".")
