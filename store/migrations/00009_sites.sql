-- +goose Up
CREATE TABLE sites (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    attributes TEXT NOT NULL,             -- JSON object
    updated    BIGINT NOT NULL
);
