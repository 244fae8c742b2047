"""The layers, one file each. Importing this package makes them known to task files."""

from engine.program.layers.agent import Agent
from engine.program.layers.code import Code
from engine.program.layers.memory import Memory
from engine.program.layers.parallel import Parallel
from engine.program.layers.predict import Predict
from engine.program.layers.refine import Refine
from engine.program.layers.residual import Residual
from engine.program.layers.retrieve import Retrieve
from engine.program.layers.route import Route
from engine.program.layers.run_code import RunCode
from engine.program.layers.schema import Schema
from engine.program.layers.sequential import Sequential
from engine.program.layers.sql import Sql
from engine.program.layers.tool import Tool
from engine.program.layers.tool_call import ToolCall
from engine.program.layers.tree_search import TreeSearch
from engine.program.layers.vote import Vote

__all__ = [
    "Agent",
    "Code",
    "Memory",
    "Parallel",
    "Predict",
    "Refine",
    "Residual",
    "Retrieve",
    "Route",
    "RunCode",
    "Schema",
    "Sequential",
    "Sql",
    "Tool",
    "ToolCall",
    "TreeSearch",
    "Vote",
]
