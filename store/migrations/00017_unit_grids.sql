-- +goose Up
-- Unit grids keep what they were before.
ALTER TABLE unit_grids RENAME TO old_unit_grids;
CREATE TABLE unit_grids (
    code        TEXT NOT NULL,
    valid_from  BIGINT NOT NULL,
    valid_until BIGINT NOT NULL, -- 0: holds now
    data        TEXT NOT NULL,   -- the grid as JSON
    PRIMARY KEY (code, valid_from)
);
INSERT INTO unit_grids (code, valid_from, valid_until, data) SELECT code, 0, 0, data FROM old_unit_grids;
DROP TABLE old_unit_grids;
