"""Trace propagation: one problem from a program and its executions, and one answer that edits all parameters."""
