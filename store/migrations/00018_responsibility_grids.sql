-- +goose Up
CREATE TABLE responsibility_grids (
    id   TEXT PRIMARY KEY,
    data TEXT NOT NULL -- the responsibility grid as JSON
);
