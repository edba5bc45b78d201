-- +goose Up
-- The work on cases that evaluation counts, several rows per case. The platform
-- makes those of cases that were there before.
CREATE TABLE case_work (
    case_id    TEXT NOT NULL REFERENCES cases (id),
    n          INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    person     TEXT NOT NULL,  -- '' for nobody
    department TEXT NOT NULL,  -- '' for none
    village    TEXT NOT NULL,  -- the first 12 digits of grid, '' for none
    grid       TEXT NOT NULL,
    began      BIGINT NOT NULL,
    due        BIGINT NOT NULL,  -- 0 for no limit
    done       BIGINT NOT NULL,  -- 0 for not yet
    month      INTEGER NOT NULL, -- of done, counted from the year 0 (UTC); 0 for not yet
    marks      INTEGER NOT NULL, -- sum of the marks
    PRIMARY KEY (case_id, n)
);
-- What was done in a period is counted from one of these alone, month by month in
-- the order of the index.
CREATE INDEX case_work_by_person ON case_work (kind, month, person, marks, done);
CREATE INDEX case_work_by_department ON case_work (kind, month, department, marks, done);
CREATE INDEX case_work_by_village ON case_work (kind, month, village, marks, done, grid);
-- What was not done at a time.
CREATE INDEX case_work_undone ON case_work (kind, done, began);
