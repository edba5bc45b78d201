-- +goose Up
-- What cases are looked for by; '' for none. A work order is no duplicate of anything.
ALTER TABLE cases ADD COLUMN class TEXT NOT NULL DEFAULT '';
ALTER TABLE cases ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE cases ADD COLUMN officer TEXT NOT NULL DEFAULT '';
ALTER TABLE cases ADD COLUMN opened_by TEXT NOT NULL DEFAULT '';
ALTER TABLE cases ADD COLUMN request TEXT NOT NULL DEFAULT ''; -- kind of the request that waits for a decision
UPDATE cases SET class = 'component/' || substr(id, 2, 4) WHERE substr(id, 1, 1) = 'C';
UPDATE cases SET class = 'event/' || substr(id, 2, 4) WHERE substr(id, 1, 1) = 'E';
UPDATE cases SET source = 'sensor' WHERE rule <> '';
UPDATE cases SET source = COALESCE((SELECT source FROM reports WHERE case_id = cases.id), 'operator') WHERE rule = '';
CREATE INDEX cases_by_class ON cases (class, opened);
CREATE INDEX cases_by_source ON cases (work_order, source, opened, id);
CREATE INDEX cases_by_officer ON cases (officer, opened, id) WHERE officer <> '';
CREATE INDEX cases_by_opener ON cases (opened_by, opened, id) WHERE opened_by <> '';
CREATE INDEX cases_by_request ON cases (request, opened, id) WHERE request <> '';

-- The step as JSON; '' for one of before, which is all in the other columns.
ALTER TABLE case_steps ADD COLUMN data TEXT NOT NULL DEFAULT '';
