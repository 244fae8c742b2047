"""Typed edits: a text taken apart into sentences, the few kinds of edits made to it, and the slots a model fills."""
