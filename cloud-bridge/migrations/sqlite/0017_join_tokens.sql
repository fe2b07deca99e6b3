-- What lets a device in, once: by the SHA-256 of the token. It is bound to the first key that uses it.
CREATE TABLE join_token (
    sha256  BLOB PRIMARY KEY,
    device  TEXT NOT NULL,
    pending INTEGER NOT NULL,
    made    INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    used_by BLOB
) WITHOUT ROWID;
