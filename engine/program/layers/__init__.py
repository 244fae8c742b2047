"""The layers, one file each. Importing this package makes them known to task files."""

from engine.program.layers.predict import Predict

__all__ = ["Predict"]
