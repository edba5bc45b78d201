-- +goose Up
-- How an alarm is suppressed now, the sum of 1 shelved, 2 by design, 4 out of
-- service; 0 for all but the newest of a rule and entity.
ALTER TABLE alarms ADD COLUMN suppressed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alarms ADD COLUMN assignee TEXT NOT NULL DEFAULT '';
CREATE INDEX alarms_suppressed ON alarms (rule, entity) WHERE suppressed <> 0;
CREATE INDEX alarms_by_assignee ON alarms (assignee, raised_at, id) WHERE assignee <> '';
UPDATE alarms SET suppressed = 1 WHERE state = 'active' AND data LIKE '%"shelved_until":%';

-- The user it is assigned to, or the alarm that suppresses it; '' for none.
ALTER TABLE transitions ADD COLUMN subject TEXT NOT NULL DEFAULT '';
-- 1 when it called an operator, 2 when it ordered maintenance, else 0.
ALTER TABLE transitions ADD COLUMN annunciated INTEGER NOT NULL DEFAULT 0;
UPDATE transitions SET annunciated = 1 WHERE kind IN ('raised', 'escalated') AND alarm IN (SELECT id FROM alarms WHERE shadow = 0);
UPDATE transitions SET annunciated = 2 WHERE annunciated = 1 AND alarm IN (SELECT id FROM alarms WHERE case_id LIKE 'W%');
-- The alarm load is read from this index alone.
CREATE INDEX transitions_annunciated ON transitions (logged, alarm, severity, annunciated) WHERE annunciated <> 0;
