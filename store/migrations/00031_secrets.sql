-- +goose Up
-- The secret that token has replaced, and until when it is good all the same.
ALTER TABLE devices ADD COLUMN token_before TEXT;
ALTER TABLE devices ADD COLUMN token_until BIGINT NOT NULL DEFAULT 0;
