-- A device that lost its memory counts its boots anew; its runs are known by chance, and no two are alike.
-- What was taken before does not say its run, and is forgotten.
DROP TABLE telemetry;
CREATE TABLE telemetry (
    device TEXT NOT NULL,
    run    INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    taken  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (device, run, seq)
) WITHOUT ROWID;
CREATE INDEX telemetry_by_time ON telemetry (taken);
CREATE INDEX telemetry_by_device ON telemetry (device, taken);
