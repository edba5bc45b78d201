-- +goose Up
-- What is urgent goes out before what waits longer.
ALTER TABLE notices ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
UPDATE notices SET urgent = 1 WHERE next > 0 AND data LIKE '%"urgent":true%';
CREATE INDEX notices_due_urgent ON notices (receiver, next, id) WHERE next > 0 AND urgent = 1;

-- 1 when an app reported it with a key of its own: those are public (Open311).
-- Quotes within a text are escaped, so that what is looked for is the field.
ALTER TABLE reports ADD COLUMN by_app INTEGER NOT NULL DEFAULT 0;
UPDATE reports SET by_app = 1 WHERE data LIKE '%,"app":"%';
CREATE INDEX reports_by_app ON reports (at, case_id) WHERE by_app = 1;
