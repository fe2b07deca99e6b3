-- What the bridge decides from: one row a device, release or rollout, as JSON.
CREATE TABLE record (
    kind TEXT NOT NULL,
    key  TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- Tokens by the SHA-256 of what people hold.
CREATE TABLE token (
    sha256  BLOB PRIMARY KEY,
    role    TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;

-- What devices said of themselves, each message once.
CREATE TABLE telemetry (
    device TEXT NOT NULL,
    boot   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    taken  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (device, boot, seq)
) WITHOUT ROWID;
CREATE INDEX telemetry_by_time ON telemetry (taken);
CREATE INDEX telemetry_by_device ON telemetry (device, taken);
