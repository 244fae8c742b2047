"""The layers, one file each. Importing this package makes them known to task files."""

from engine.program.layers.predict import Predict
from engine.program.layers.refine import Refine
from engine.program.layers.residual import Residual
from engine.program.layers.retrieve import Retrieve
from engine.program.layers.sequential import Sequential
from engine.program.layers.vote import Vote

__all__ = ["Predict", "Refine", "Residual", "Retrieve", "Sequential", "Vote"]
