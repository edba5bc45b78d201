-- +goose Up
-- After a crash the rule engine asks what was applied since its snapshot.
CREATE INDEX transitions_by_position ON transitions (position);
