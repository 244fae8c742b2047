-- A trace has a short name made of its content, the time it was written, and the file:line of its row; `number` is the
-- order of writing. For a trace that is here already, the time is that of its last call or of its run, what is later.
CREATE TABLE named_traces (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    run TEXT NOT NULL,
    program TEXT NOT NULL,
    example TEXT NOT NULL,
    origin TEXT NOT NULL DEFAULT '',
    inputs TEXT NOT NULL,
    accepted TEXT NOT NULL,
    steps TEXT NOT NULL,
    prediction TEXT NOT NULL,
    error TEXT,
    score REAL
);

INSERT INTO named_traces (id, created, run, program, example, inputs, accepted, steps, prediction, error, score)
SELECT
    trace_id(run, program, example, inputs),
    max(
        coalesce((SELECT started FROM runs WHERE runs.id = traces.run), ''),
        coalesce((SELECT max(calls.created) FROM json_tree(traces.steps) JOIN calls ON calls.key = atom), '')
    ) AS written,
    run, program, example, inputs, accepted, steps, prediction, error, score
FROM traces ORDER BY written, run, program, example;

DROP TABLE traces;
ALTER TABLE named_traces RENAME TO traces;
