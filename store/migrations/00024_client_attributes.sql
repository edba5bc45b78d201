-- +goose Up
-- What a device reported of itself, and that its gateway said that it left.
ALTER TABLE device_latest ADD COLUMN client TEXT NOT NULL DEFAULT ''; -- JSON object, '' for none
ALTER TABLE device_latest ADD COLUMN gone SMALLINT NOT NULL DEFAULT 0;
