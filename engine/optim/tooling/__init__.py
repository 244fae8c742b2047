"""Tooling: how a model is asked for functions, and what the functions in a program give on rows."""
