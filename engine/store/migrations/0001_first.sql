-- Calls are pure functions of their key; `paid` counts how often one was computed. Failed calls are kept, never reused.
CREATE TABLE calls (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,
    request TEXT NOT NULL,
    prompt TEXT NOT NULL,
    answer TEXT NOT NULL,
    digest TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    computed_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    paid INTEGER NOT NULL DEFAULT 1,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;

CREATE TABLE programs (
    fingerprint TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    task_path TEXT NOT NULL,
    task_fingerprint TEXT NOT NULL,
    seed INTEGER NOT NULL,
    settings TEXT NOT NULL,
    status TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    report TEXT,
    started TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;

CREATE TABLE traces (
    run TEXT NOT NULL,
    program TEXT NOT NULL,
    example TEXT NOT NULL,
    inputs TEXT NOT NULL,
    accepted TEXT NOT NULL,
    steps TEXT NOT NULL,
    prediction TEXT NOT NULL,
    error TEXT,
    score REAL,
    PRIMARY KEY (run, program, example, inputs)
) WITHOUT ROWID;

CREATE TABLE candidates (
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    round INTEGER NOT NULL,
    proposer TEXT NOT NULL,
    note TEXT NOT NULL,
    parent TEXT NOT NULL,
    program TEXT NOT NULL,
    examples INTEGER NOT NULL,
    score REAL NOT NULL,
    p_value REAL,
    level REAL,
    accepted INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;

-- What a round decided by the clock, so that a replay decides alike.
CREATE TABLE rounds (
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    calls_left INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;

CREATE INDEX runs_by_task ON runs (task_fingerprint, seed);
