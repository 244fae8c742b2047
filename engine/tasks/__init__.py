"""The data side of a task: its file, its rows, its splits and its metrics."""
