-- +goose Up
CREATE TABLE devices (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    model      TEXT NOT NULL,
    attributes TEXT NOT NULL,             -- JSON object
    lat        DOUBLE PRECISION,          -- NULL when the place is not known
    lon        DOUBLE PRECISION,
    grid       TEXT NOT NULL,
    adjacent   TEXT NOT NULL,             -- JSON array of device ids
    disabled   SMALLINT NOT NULL,
    token      TEXT UNIQUE,               -- SHA-256 in hex, NULL when the device has none
    created    BIGINT NOT NULL,
    updated    BIGINT NOT NULL
);
CREATE TABLE device_latest (
    device    TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    last_seen BIGINT NOT NULL,
    latest    TEXT NOT NULL               -- JSON object: metric, latest value
);
