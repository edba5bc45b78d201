-- +goose Up
-- 1 for who can't sign in until somebody enables them again.
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
