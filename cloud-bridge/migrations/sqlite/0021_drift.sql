-- Windows of drift, each taken once, and the alarms that devices raised of them.
CREATE TABLE drift_window (
    device TEXT NOT NULL,
    run    INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    stream TEXT NOT NULL,
    ended  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (device, run, seq)
) WITHOUT ROWID;
CREATE INDEX drift_window_by_stream ON drift_window (stream, ended);
CREATE INDEX drift_window_by_time ON drift_window (ended);

CREATE TABLE drift_alarm (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    stream  TEXT NOT NULL,
    device  TEXT NOT NULL,
    feature TEXT NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX drift_alarm_by_feature ON drift_alarm (stream, device, feature, last);
CREATE INDEX drift_alarm_by_time ON drift_alarm (stream, first);
