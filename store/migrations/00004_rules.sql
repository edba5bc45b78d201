-- +goose Up
CREATE TABLE rule_snapshot (
    id       INTEGER PRIMARY KEY,
    position BIGINT NOT NULL,
    data     BLOB NOT NULL
);
