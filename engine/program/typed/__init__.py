"""Typed fields: what a model may write into one, as a grammar to decode under and as a reader of what was written."""
