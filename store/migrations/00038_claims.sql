-- +goose Up
-- Devices that said that they may be claimed by who knows a secret.
CREATE TABLE claims (
    device TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    secret TEXT NOT NULL,  -- SHA-256 in hex
    until  BIGINT NOT NULL -- when it ends by itself
);
CREATE INDEX claims_until ON claims (until);
