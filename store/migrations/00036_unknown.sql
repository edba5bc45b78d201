-- +goose Up
-- When it is not known what a device measured: it was silent, or messages are missing by its numbers.
CREATE TABLE gaps (
    device  TEXT NOT NULL,
    since   BIGINT NOT NULL,
    until   BIGINT NOT NULL,
    missing BIGINT NOT NULL, -- messages by the numbers, 0 for silence
    PRIMARY KEY (device, until, since)
);
CREATE INDEX gaps_until ON gaps (until);
ALTER TABLE last_heard ADD COLUMN numbered BIGINT;
