-- +goose Up
-- What devices are known by: the one that counts, and the one that it replaced. The column
-- token of devices stays, empty: SQLite can't drop it.
CREATE TABLE device_secrets (
    hash     TEXT PRIMARY KEY,          -- SHA-256 in hex
    device   TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    kind     TEXT NOT NULL,             -- '' when it was issued before kinds were kept
    hint     TEXT NOT NULL,
    since    BIGINT NOT NULL,
    until    BIGINT NOT NULL,           -- 0: until it is replaced
    replaced SMALLINT NOT NULL
);
CREATE INDEX device_secrets_device ON device_secrets (device);
INSERT INTO device_secrets SELECT token, id, '', '', 0, 0, 0 FROM devices WHERE token IS NOT NULL;
INSERT INTO device_secrets SELECT token_before, id, '', '', 0, token_until, 1 FROM devices WHERE token_before IS NOT NULL
    ON CONFLICT (hash) DO NOTHING;
UPDATE devices SET token = NULL;
ALTER TABLE devices DROP COLUMN token_before;
ALTER TABLE devices DROP COLUMN token_until;
