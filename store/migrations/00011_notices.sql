-- +goose Up
-- What is told of cases, one row per receiver. The key of a notice names what
-- happened for ever, so that nothing is told anew after a crash.
CREATE TABLE notices (
    id         TEXT PRIMARY KEY, -- key@receiver
    notice_key TEXT NOT NULL,
    receiver   TEXT NOT NULL,    -- '' for none
    case_id    TEXT NOT NULL,
    alarm      TEXT NOT NULL,
    state      TEXT NOT NULL,
    at         BIGINT NOT NULL,
    next       BIGINT NOT NULL,  -- when to send it; 0 when that is over
    data       TEXT NOT NULL     -- the notice as JSON
);
CREATE INDEX notices_by_key ON notices (notice_key);
CREATE INDEX notices_by_time ON notices (at, id);
CREATE INDEX notices_by_case ON notices (case_id, at, id);
CREATE INDEX notices_by_alarm ON notices (alarm, at, id);
CREATE INDEX notices_by_state ON notices (state, at, id);
CREATE INDEX notices_due ON notices (receiver, next, id) WHERE next > 0;

-- What cases wait for, in our time.
CREATE TABLE case_timers (
    case_id TEXT NOT NULL REFERENCES cases (id),
    kind    TEXT NOT NULL,
    n       INTEGER NOT NULL,
    due     BIGINT NOT NULL,
    parked  INTEGER NOT NULL,
    data    TEXT NOT NULL, -- the timer as JSON
    PRIMARY KEY (case_id, kind, n)
);
CREATE INDEX case_timers_due ON case_timers (due) WHERE parked = 0;

-- How many cases the alarms of a rule opened within a time.
ALTER TABLE cases ADD COLUMN rule TEXT NOT NULL DEFAULT '';
CREATE INDEX cases_by_rule ON cases (rule, opened) WHERE rule <> '';

-- 1 when another alarm explains it (or did when it cleared), or it flaps.
ALTER TABLE alarms ADD COLUMN explained INTEGER NOT NULL DEFAULT 0;
