-- What is left of a budget is read from the clock at several points of a round, not only where it begins.
CREATE TABLE allowances (
    run TEXT NOT NULL,
    round INTEGER NOT NULL,
    phase TEXT NOT NULL,
    calls_left INTEGER NOT NULL,
    PRIMARY KEY (run, round, phase)
) WITHOUT ROWID;
INSERT INTO allowances SELECT run, number, 'proposing', calls_left FROM rounds;
DROP TABLE rounds;
