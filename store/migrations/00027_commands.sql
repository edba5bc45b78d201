-- +goose Up
-- What devices were told to do.
CREATE TABLE commands (
    id      BIGINT PRIMARY KEY,
    device  TEXT NOT NULL,
    created BIGINT NOT NULL,
    open    SMALLINT NOT NULL, -- 1 while something can still become of it
    data    TEXT NOT NULL      -- the command as JSON
);
CREATE INDEX commands_by_device ON commands (device, id);
CREATE INDEX commands_by_time ON commands (created);
CREATE INDEX commands_open ON commands (id) WHERE open = 1;
