-- +goose Up
-- How far ahead the times were that a device gave, see ClockHistory.
ALTER TABLE device_latest ADD COLUMN clock TEXT NOT NULL DEFAULT ''; -- JSON object, '' for none
