-- +goose Up
-- When the platform heard nobody, by the log: no silence of the devices, but nothing is known of what they measured.
CREATE TABLE outages (
    began BIGINT PRIMARY KEY,
    ended BIGINT NOT NULL
);
CREATE INDEX outages_ended ON outages (ended);
-- That of the platform itself is when the newest record was logged; it was when it began to run.
UPDATE last_heard SET at = (SELECT MAX(at) FROM last_heard) WHERE device = '';
