"""Every stock architecture as a program, with the settings that it needs."""

import json
from collections.abc import Mapping
from typing import Any

from engine.program.graph import Program
from engine.program.library import architecture

FUNCTIONS = json.dumps([{"name": "fly", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}])
CHECK = {"layer": "run_code", "on_error": "text", "outputs": ["check"]}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "nearest_demos": {"nearest": 2, "demos": [{"inputs": {"question": q}, "outputs": {"answer": q}} for q in "abcd"]},
    "reflexion": {"check": CHECK, "max_tokens": 40},
    "rag": {"index": "kb"},
    "hybrid_rag": {"index": "kb"},
    "multi_hop_rag": {"index": "kb"},
    "react": {"index": "kb", "tools": ["tools.py:double"], "steps": 3},
    "router": {"experts": {"maths": "Answer with a number.", "words": "Answer in words."}},
    "classify_then_answer": {"kinds": ["maths", "words"]},
    "text_to_sql": {"database": "shop.db"},
    "tree_of_thoughts": {"depth": 1, "branch": 2},
    "self_consistency": {"n": 3},
}


def made(name: str) -> Program:
    """An architecture that reads a question."""
    inputs = ("functions", "question") if name == "tool_call" else ("question",)
    return architecture(name, inputs, **SETTINGS.get(name, {}))
