"""Tools that a model may write: Python functions read for what they take, and run in the sandbox, never here.

    def name(argument: type, other: type = default) -> type:
        \"\"\"What it is for.\"\"\"

A type is str, int, float, bool, list, dict or list[…] of these; any other, or none, takes any value. What else stands
in the source (imports, constants, functions whose names begin with `_`) is theirs to use, and no tool.
"""

import ast
import functools
import warnings
from dataclasses import dataclass
from typing import Any

from engine.errors import ContentError
from engine.program.tools.spec import ToolSpec

_PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
}


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a source: what a call of it takes, and its own code."""

    spec: ToolSpec
    code: str

    @property
    def name(self) -> str:
        """The function's name."""
        return self.spec.name


@functools.lru_cache(maxsize=256)
def read_functions(source: str) -> tuple[Function, ...]:
    """The tools in a source, in their order; none in a blank one. Nothing of it is run.

    Raises:
        ContentError: it is no Python, two functions have one name, or one takes what a call cannot give by name.
    """
    found: dict[str, Function] = {}
    for node in parsed(source).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if node.name in found:
            raise ContentError(f"line {node.lineno}: two functions are called {node.name!r}: rename one")
        found[node.name] = Function(_spec(node), ast.get_source_segment(source, node) or "")
    return tuple(found.values())


def parsed(source: str) -> ast.Module:
    """A source as its syntax tree.

    Raises:
        ContentError: it is no Python; the message says where.
    """
    try:
        with warnings.catch_warnings():  # of odd escapes in texts, which are the model's affair
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        raise ContentError(f"line {error.lineno or 1}: no Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ContentError(f"no Python: {str(error) or 'it is nested too deeply'}") from None


def _spec(node: ast.FunctionDef) -> ToolSpec:
    """What a function takes, by its signature; its purpose is the first line of its docstring."""
    given = node.args
    if given.posonlyargs or given.vararg or given.kwarg:
        raise ContentError(f"line {node.lineno}: {node.name}: a call gives every argument by its name: no * and no /")
    if node.decorator_list:
        raise ContentError(f"line {node.lineno}: {node.name}: a tool is a plain function, without decorators")
    plain = len(given.args) - len(given.defaults)
    arguments: list[tuple[ast.arg, ast.expr | None]] = [(one, None) for one in given.args[:plain]]
    arguments += [
        *zip(given.args[plain:], given.defaults, strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    properties = {one.arg: _schema(one.annotation) | _default(default) for one, default in arguments}
    required = [one.arg for one, default in arguments if default is None]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    purpose = (ast.get_docstring(node) or "").strip().partition("\n")[0]
    return ToolSpec.from_schema({"name": node.name, "description": purpose, "parameters": parameters})


def _schema(annotation: ast.expr | None) -> dict[str, Any]:
    """The JSON Schema of an annotation; an empty one, which is any value, where there is none that is known."""
    match annotation:
        case ast.Name(id=name):
            return dict(_PLAIN.get(name, {}))
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return {"type": "array", "items": _schema(inner)}
    return {}


def _default(default: ast.expr | None) -> dict[str, Any]:
    """A default that a prompt can show; nothing for one that is worked out, since a call need not give it."""
    value = default.value if isinstance(default, ast.Constant) else None
    return {"default": value} if isinstance(value, bool | int | str) else {}
