-- +goose Up
-- How much of the work in case_work that was done in a month (UTC) is alike, so that
-- an evaluation of a year need not count each piece. Written with case_work.
CREATE TABLE case_work_sums (
    kind      TEXT NOT NULL,
    by_what   TEXT NOT NULL,    -- the column of case_work that key_value is from: village, department, person
    month     INTEGER NOT NULL, -- counted from the year 0
    key_value TEXT NOT NULL,
    marks     INTEGER NOT NULL,
    n         INTEGER NOT NULL, -- may come down to 0
    PRIMARY KEY (kind, by_what, month, key_value, marks)
);
INSERT INTO case_work_sums SELECT kind, 'village', month, village, marks, COUNT(*) FROM case_work WHERE month > 0 GROUP BY kind, month, village, marks;
INSERT INTO case_work_sums SELECT kind, 'department', month, department, marks, COUNT(*) FROM case_work WHERE month > 0 GROUP BY kind, month, department, marks;
INSERT INTO case_work_sums SELECT kind, 'person', month, person, marks, COUNT(*) FROM case_work WHERE month > 0 GROUP BY kind, month, person, marks;

-- Where a case lies as a whole: its unit grid, or the area that has all devices of
-- its alarms. That of before is its unit grid.
ALTER TABLE cases ADD COLUMN area TEXT NOT NULL DEFAULT '';
UPDATE cases SET area = grid;
