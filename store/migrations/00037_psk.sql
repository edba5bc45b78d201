-- +goose Up
-- Pre-shared keys of DTLS: the identity that goes with one, and the key itself, sealed with a
-- key that is not in the database.
ALTER TABLE device_secrets ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE device_secrets ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
