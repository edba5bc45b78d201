-- +goose Up
-- The county, town or village that a user is confined to; '' for nothing.
ALTER TABLE users ADD COLUMN area TEXT NOT NULL DEFAULT '';
