-- +goose Up
-- Packages that devices can load, and who is to have which.
CREATE TABLE firmware (
    title   TEXT NOT NULL,
    version TEXT NOT NULL,
    data    TEXT NOT NULL, -- the package as JSON, without its file
    PRIMARY KEY (title, version)
);
CREATE TABLE firmware_files (
    title   TEXT NOT NULL,
    version TEXT NOT NULL,
    file    BLOB NOT NULL,
    PRIMARY KEY (title, version)
);
CREATE TABLE firmware_targets (
    scope   TEXT NOT NULL,
    name    TEXT NOT NULL,
    title   TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (scope, name)
);
