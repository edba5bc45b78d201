-- +goose Up
-- What the platform says of its own steps, in both languages; '' for a person's.
ALTER TABLE case_steps ADD COLUMN text_zh TEXT NOT NULL DEFAULT '';
ALTER TABLE case_steps ADD COLUMN text_en TEXT NOT NULL DEFAULT '';
