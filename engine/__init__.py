"""localgrad: optimize pipelines of local language models the way deep learning optimizes networks.

Importing this package does nothing and costs little; every name below is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.errors import LocalgradError as LocalgradError
    from engine.evaluation import evaluate as evaluate
    from engine.forward import bind as bind
    from engine.forward import unrolled as unrolled
    from engine.opening import open_runtime as open_runtime
    from engine.program.graph import Program as Program
    from engine.program.layer import Input as Input
    from engine.program.layers import Agent as Agent
    from engine.program.layers import Code as Code
    from engine.program.layers import Memory as Memory
    from engine.program.layers import Parallel as Parallel
    from engine.program.layers import Predict as Predict
    from engine.program.layers import Refine as Refine
    from engine.program.layers import Residual as Residual
    from engine.program.layers import Retrieve as Retrieve
    from engine.program.layers import Route as Route
    from engine.program.layers import RunCode as RunCode
    from engine.program.layers import Schema as Schema
    from engine.program.layers import Sequential as Sequential
    from engine.program.layers import Sql as Sql
    from engine.program.layers import Tool as Tool
    from engine.program.layers import ToolCall as ToolCall
    from engine.program.layers import TreeSearch as TreeSearch
    from engine.program.layers import Vote as Vote
    from engine.program.saved import load_saved as load_saved
    from engine.records import Example as Example
    from engine.records import Prediction as Prediction
    from engine.tasks.metrics import METRICS as METRICS
    from engine.tasks.taskfile import load_task as load_task

__version__ = "0.1.0"

_HOMES = {
    "Agent": "engine.program.layers",
    "Code": "engine.program.layers",
    "Example": "engine.records",
    "Input": "engine.program.layer",
    "LocalgradError": "engine.errors",
    "METRICS": "engine.tasks.metrics",
    "Memory": "engine.program.layers",
    "Parallel": "engine.program.layers",
    "Predict": "engine.program.layers",
    "Prediction": "engine.records",
    "Program": "engine.program.graph",
    "Refine": "engine.program.layers",
    "Residual": "engine.program.layers",
    "Retrieve": "engine.program.layers",
    "Route": "engine.program.layers",
    "RunCode": "engine.program.layers",
    "Schema": "engine.program.layers",
    "Sequential": "engine.program.layers",
    "Sql": "engine.program.layers",
    "Tool": "engine.program.layers",
    "ToolCall": "engine.program.layers",
    "TreeSearch": "engine.program.layers",
    "Vote": "engine.program.layers",
    "bind": "engine.forward",
    "evaluate": "engine.evaluation",
    "load_saved": "engine.program.saved",
    "load_task": "engine.tasks.taskfile",
    "open_runtime": "engine.opening",
    "unrolled": "engine.forward",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
