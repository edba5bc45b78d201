-- +goose Up
-- When the platform ran: what lies between is no silence of the devices.
CREATE TABLE uptimes (
    began BIGINT PRIMARY KEY,
    ended BIGINT NOT NULL
);
