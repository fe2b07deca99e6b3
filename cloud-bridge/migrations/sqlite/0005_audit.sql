-- The audit log: each line's text and digest, which holds the digest before it. Lines are only ever added.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    text   TEXT NOT NULL,
    sha256 BLOB NOT NULL
);

-- Who holds a token, as the audit log names them.
ALTER TABLE token ADD COLUMN name TEXT NOT NULL DEFAULT 'admin';
