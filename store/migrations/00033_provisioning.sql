-- +goose Up
-- Models whose devices may provision themselves.
CREATE TABLE provisioning (
    model      TEXT PRIMARY KEY,
    key        TEXT NOT NULL,
    secret     TEXT NOT NULL,     -- SHA-256 in hex
    create_new SMALLINT NOT NULL, -- 1: devices that are not registered are
    since      BIGINT NOT NULL
);
