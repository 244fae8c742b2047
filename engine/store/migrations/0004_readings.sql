-- What the clock and the counters said where a run decided by them: a replay decides by the same figures. `name` tells
-- what was read.
CREATE TABLE readings (
    run TEXT NOT NULL,
    round INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run, round, name)
) WITHOUT ROWID;
INSERT INTO readings SELECT run, number, 'calls left', calls_left FROM rounds;
DROP TABLE rounds;
