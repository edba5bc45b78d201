-- +goose Up
-- The component that a device is attached to, and that a case is about; '' for none.
ALTER TABLE devices ADD COLUMN component TEXT NOT NULL DEFAULT '';
ALTER TABLE cases ADD COLUMN component TEXT NOT NULL DEFAULT '';
CREATE INDEX cases_by_component ON cases (component, opened, id) WHERE component <> '';
