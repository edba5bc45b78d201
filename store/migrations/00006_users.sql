-- +goose Up
CREATE TABLE users (
    name       TEXT PRIMARY KEY,
    title      TEXT NOT NULL,
    role       TEXT NOT NULL,
    department TEXT NOT NULL,
    password   TEXT NOT NULL, -- argon2id in PHC form, '' for a program that has tokens only
    created    BIGINT NOT NULL
);

CREATE TABLE sessions (
    id      TEXT PRIMARY KEY, -- SHA-256 of the secret
    owner   TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    label   TEXT NOT NULL,    -- '' for a sign-in
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL   -- 0: never
);
CREATE INDEX sessions_owner ON sessions (owner, created);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    role    TEXT NOT NULL,
    address TEXT NOT NULL,
    action  TEXT NOT NULL,
    target  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    status  INTEGER NOT NULL
);
CREATE INDEX audit_actor ON audit (actor, id);
CREATE INDEX audit_at ON audit (at);
