-- Telemetry that is older than land keeps each message of: one message a device and hour, merged as devices merge it.
CREATE TABLE telemetry_hour (
    device TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    taken  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (device, hour)
) WITHOUT ROWID;
CREATE INDEX telemetry_hour_by_time ON telemetry_hour (hour);

-- What was merged of each run of a device's agent: up to this number. Said again, it is known by that.
CREATE TABLE telemetry_run (
    device TEXT NOT NULL,
    run    INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    taken  INTEGER NOT NULL,
    PRIMARY KEY (device, run)
) WITHOUT ROWID;

-- Where the audit log begins, if lines that were older than land keeps them are gone: the last of those.
CREATE TABLE audit_base (
    seq    INTEGER PRIMARY KEY,
    sha256 BLOB NOT NULL
);

-- Requests that count once: what came of each, by the key that who asked gave it.
CREATE TABLE once (
    who    TEXT NOT NULL,
    key    TEXT NOT NULL,
    asked  BLOB NOT NULL,
    at     INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (who, key)
) WITHOUT ROWID;
