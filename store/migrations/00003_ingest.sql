-- +goose Up
CREATE TABLE ledger (
    device      TEXT NOT NULL,
    hour        BIGINT NOT NULL,
    messages    BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    stored      BIGINT NOT NULL,
    rejected    BIGINT NOT NULL,
    duplicate   BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    PRIMARY KEY (hour, device)
);
CREATE INDEX ledger_device ON ledger (device, hour);

CREATE TABLE dead_letters (
    position BIGINT PRIMARY KEY,
    device   TEXT NOT NULL,
    protocol TEXT NOT NULL,
    topic    TEXT NOT NULL,
    payload  TEXT NOT NULL, -- base64
    received BIGINT NOT NULL,
    reason   TEXT NOT NULL
);
CREATE INDEX dead_letters_device ON dead_letters (device, position);
