-- What webhooks are still to be told: one row for each of them and each event, written in one with what it tells of.
CREATE TABLE notice (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    hook  TEXT NOT NULL,
    kind  TEXT NOT NULL,
    at    INTEGER NOT NULL,
    body  TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    -- When it is tried again; nothing when it is given up.
    due   INTEGER,
    error TEXT
);
CREATE INDEX notice_by_due ON notice (due) WHERE due IS NOT NULL;
CREATE INDEX notice_by_hook ON notice (hook, id);
