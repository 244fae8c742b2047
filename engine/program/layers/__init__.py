"""The layers, one file each. Importing this package makes them known to task files."""

from engine.program.layers.code import Code
from engine.program.layers.predict import Predict
from engine.program.layers.retrieve import Retrieve
from engine.program.layers.run_code import RunCode
from engine.program.layers.schema import Schema
from engine.program.layers.sequential import Sequential
from engine.program.layers.sql import Sql

__all__ = ["Code", "Predict", "Retrieve", "RunCode", "Schema", "Sequential", "Sql"]
