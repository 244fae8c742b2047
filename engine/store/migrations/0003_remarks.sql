-- What feedback said about a trace. The same thing said again is the same row, so that a replay adds none; `number` is
-- the order in which things were first said. `trace` is a trace's id, whether or not the trace is written already.
CREATE TABLE remarks (
    number INTEGER PRIMARY KEY,
    trace TEXT NOT NULL,
    node TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    value REAL,
    UNIQUE (trace, node, kind, text)
);
