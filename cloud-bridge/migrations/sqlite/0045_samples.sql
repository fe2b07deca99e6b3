-- Inputs that devices gave: all of one device for one request, as JSON.
CREATE TABLE sample (
    request INTEGER NOT NULL,
    device  TEXT NOT NULL,
    at      INTEGER NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (request, device)
);
CREATE INDEX sample_by_time ON sample (at);
