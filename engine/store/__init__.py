"""The trace store: one SQLite file per project that remembers every call, trace, run and candidate."""
