-- +goose Up
-- What people outside of the administration reported, one row per case.
CREATE TABLE reports (
    case_id TEXT PRIMARY KEY REFERENCES cases (id),
    source  TEXT NOT NULL,
    at      BIGINT NOT NULL,
    secret  TEXT NOT NULL, -- SHA-256 of what the reporter looks it up with, '' for nothing
    data    TEXT NOT NULL  -- the report as JSON
);
CREATE INDEX reports_by_time ON reports (source, at);

-- The apps that may report cases by Open311.
CREATE TABLE api_keys (
    id      TEXT PRIMARY KEY, -- SHA-256 of the key
    name    TEXT NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    data    TEXT NOT NULL     -- the key as JSON, without the key itself
);
