-- +goose Up
-- Devices that said that they may be claimed by who knows a secret.
-- IF NOT EXISTS: for an hour this was 38.
CREATE TABLE IF NOT EXISTS claims (
    device TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    secret TEXT NOT NULL,  -- SHA-256 in hex
    until  BIGINT NOT NULL -- when it ends by itself
);
CREATE INDEX IF NOT EXISTS claims_until ON claims (until);
