-- +goose Up
-- A message can be a dead letter twice: some of it could not be decoded, and
-- the time series refused the rest.
CREATE TABLE dead_letters_2 (
    position BIGINT NOT NULL,
    stage    TEXT NOT NULL, -- where it failed: decode or series
    device   TEXT NOT NULL,
    protocol TEXT NOT NULL,
    topic    TEXT NOT NULL,
    payload  TEXT NOT NULL, -- base64
    received BIGINT NOT NULL, -- nanoseconds since 1970: it dates readings that have no time of their own
    reason   TEXT NOT NULL,
    replayed BIGINT NOT NULL, -- when it was brought in again; 0 for not yet
    PRIMARY KEY (position, stage)
);
INSERT INTO dead_letters_2 (position, stage, device, protocol, topic, payload, received, reason, replayed)
    SELECT position, 'decode', device, protocol, topic, payload, received * 1000000, reason, 0 FROM dead_letters;
DROP TABLE dead_letters;
ALTER TABLE dead_letters_2 RENAME TO dead_letters;
CREATE INDEX dead_letters_device ON dead_letters (device, position);
