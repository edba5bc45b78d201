-- +goose Up
CREATE TABLE class_tables (
    version    INTEGER PRIMARY KEY,
    valid_from BIGINT NOT NULL,
    data       TEXT NOT NULL -- the classes as JSON
);
