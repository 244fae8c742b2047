"""The layers, one file each. Importing this package makes them known to task files."""

from engine.program.layers.memory import Memory
from engine.program.layers.predict import Predict
from engine.program.layers.retrieve import Retrieve
from engine.program.layers.sequential import Sequential

__all__ = ["Memory", "Predict", "Retrieve", "Sequential"]
