-- +goose Up
ALTER TABLE ledger ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN silent BIGINT NOT NULL DEFAULT 0;
CREATE TABLE last_heard (
    device   TEXT PRIMARY KEY, -- '' is the platform itself
    at       BIGINT NOT NULL,
    sequence BIGINT
);
