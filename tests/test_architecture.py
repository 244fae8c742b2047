"""What holds for the code as a whole: its layers, what importing it costs, and what it never uses."""

import ast
import functools
import graphlib
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine

ROOT = Path(engine.__file__).parent

# Each row may import from the rows above it and from itself where it is a package, never from below or beside.
LAYERS = (
    ("errors",),
    ("records",),
    ("flows", "statistics"),
    ("tasks",),
    ("program",),
    ("store",),
    ("inference",),
    ("retrieval", "sandbox", "tools"),
    ("opening", "forward"),
    ("evaluation",),
    ("feedback",),
    ("optim",),
    ("search",),
    ("report", "export"),
    ("serve",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def module_name(path: Path) -> str:
    parts = ("engine", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
INNER = {name: tree for name, tree in SOURCES.items() if name != "engine"}


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, wherever in it; names taken from a package count as its modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else str(node.module)


def test_every_part_of_engine_has_a_layer() -> None:
    assert {name.split(".")[1] for name in INNER} <= RANK.keys()
    assert len(INNER) > 50


@pytest.mark.parametrize("name", INNER)
def test_a_module_imports_only_from_its_own_package_and_the_layers_above(name: str) -> None:
    own = name.split(".")[1]
    for target in imported(INNER[name]):
        if target.split(".")[0] != "engine":
            continue
        if target == "engine":
            assert own == "cli", f"{name} imports engine itself, which names everything"
            continue
        part = target.split(".")[1]
        allowed = part == own or RANK[part] < RANK[own]
        assert allowed, f"{name} imports {target}: {own} may not import {part}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {
        name: {target for target in imported(tree) if target in INNER and target != name}
        for name, tree in INNER.items()
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(INNER)


IMPORT = """
import json, os, pathlib, signal, sys, threading
def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "threads": threading.active_count(),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "recursion": sys.getrecursionlimit(),
        "hooks": [str(sys.excepthook), str(sys.meta_path)],
    }
before, loaded = state(), set(sys.modules)
import engine
dir(engine)
changed = [name for name, value in state().items() if value != before[name]]
print(json.dumps({"changed": changed, "loaded": sorted(set(sys.modules) - loaded)}))
"""


def test_importing_engine_loads_nothing_heavy_and_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    seen = json.loads(done.stdout)
    assert done.stderr == ""
    assert seen["changed"] == []
    assert list(tmp_path.iterdir()) == []
    assert [name for name in seen["loaded"] if name.split(".")[0] == "engine"] == ["engine"]
    outside = {name.split(".")[0] for name in seen["loaded"]} - sys.stdlib_module_names - {"engine"}
    assert outside == set()


@pytest.mark.parametrize("heavy", ["llama_cpp", "torch", "faiss", "sentence_transformers", "pydantic_monty"])
def test_heavy_libraries_are_imported_where_they_are_used(heavy: str) -> None:
    at_the_top = [
        name
        for name, tree in SOURCES.items()
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and heavy in {part.split(".")[0] for part in imported(ast.Module([node], []))}
    ]
    assert at_the_top in ([], [f"engine.inference.local.{name}" for name in ("context", "llama", "pooling")])


def test_no_module_but_the_llama_backends_needs_a_heavy_library_to_be_imported() -> None:
    names = [name for name in INNER if name != "engine.__main__" and not needs_llama(name)]
    code = "import sys\n" + "".join(f"import {name}\n" for name in names)
    code += (
        "print(sorted({'llama_cpp', 'torch', 'faiss', 'sentence_transformers', 'pydantic_monty'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "engine.cli" in names
    assert "engine.optim.loop" in names


@functools.cache
def needs_llama(name: str) -> bool:
    """Whether a module imports llama_cpp at its top, itself or through another module."""
    tops = [node for node in INNER[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
    targets = set(imported(ast.Module(list(tops), [])))
    return any(target.split(".")[0] == "llama_cpp" or (target in INNER and needs_llama(target)) for target in targets)


def test_all_is_complete_and_every_name_in_it_resolves() -> None:
    typed = {
        alias.asname: node.module
        for node in ast.walk(SOURCES["engine"])
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("engine.")
        for alias in node.names
    }
    assert {*typed, "__version__"} == set(engine.__all__)
    assert len(engine.__all__) == len(set(engine.__all__))
    assert dir(engine) == sorted(engine.__all__)
    for name, home in typed.items():
        assert getattr(engine, str(name)) is getattr(importlib.import_module(str(home)), str(name))
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'nothing'"):
        engine.nothing  # noqa: B018


def test_every_module_can_be_found_by_its_name() -> None:
    walked = {module.name for module in pkgutil.walk_packages([str(ROOT)], "engine.")}
    assert walked == set(INNER)


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "diskcache", "LlamaDiskCache"}


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_uses_pickle_eval_exec_or_diskcache(name: str) -> None:
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = {part for target in imported(ast.Module([node], [])) for part in target.split(".")}
            named |= {alias.name for alias in node.names}
            assert not named & FORBIDDEN
        if isinstance(node, ast.Attribute):
            assert node.attr not in FORBIDDEN
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
        if isinstance(node, ast.Constant):
            assert node.value not in FORBIDDEN


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("engine.cli")])
def test_only_the_cli_prints(name: str) -> None:
    called = {
        node.func.id
        for node in ast.walk(SOURCES[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in called


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_and_every_public_function_and_class_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(SOURCES[name])
    silent = [
        node.name
        for node in SOURCES[name].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not (ast.get_docstring(node) or "").strip()
    ]
    assert silent == []
