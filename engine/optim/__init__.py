"""Optimization: one loop, its budget, races and acceptance, and the proposers."""
