-- +goose Up
-- What is urgent goes out before what waits longer.
ALTER TABLE notices ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
UPDATE notices SET urgent = 1 WHERE next > 0 AND data LIKE '%"urgent":true%';
CREATE INDEX notices_due_urgent ON notices (receiver, next, id) WHERE next > 0 AND urgent = 1;
