-- What people asked of devices, and what came of it: the draft that was signed, and the device's word.
CREATE TABLE command (
    device   TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    draft    TEXT NOT NULL,
    answered INTEGER,
    result   TEXT,
    PRIMARY KEY (device, seq)
);
CREATE INDEX command_by_time ON command (at);
