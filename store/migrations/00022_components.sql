-- +goose Up
CREATE TABLE components (
    id   TEXT PRIMARY KEY,
    data TEXT NOT NULL -- the component as JSON
);
