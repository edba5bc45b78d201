-- +goose Up
CREATE TABLE alarms (
    id        TEXT PRIMARY KEY,
    rule      TEXT NOT NULL,
    entity    TEXT NOT NULL,
    severity  INTEGER NOT NULL,
    state     TEXT NOT NULL,
    acked     INTEGER NOT NULL,
    latched   INTEGER NOT NULL,
    shadow    INTEGER NOT NULL,
    raised_at BIGINT NOT NULL,
    case_id   TEXT NOT NULL, -- '' for none
    data      TEXT NOT NULL  -- the alarm as JSON
);
CREATE UNIQUE INDEX alarms_open ON alarms (rule, entity) WHERE state = 'active';
CREATE INDEX alarms_by_time ON alarms (shadow, raised_at, id);
CREATE INDEX alarms_by_state ON alarms (shadow, state, raised_at, id);
CREATE INDEX alarms_by_rule ON alarms (rule, raised_at, id);
CREATE INDEX alarms_by_case ON alarms (case_id, raised_at, id) WHERE case_id <> '';

-- The devices of an alarm: the one that raised it and the members of its group.
CREATE TABLE alarm_devices (
    device    TEXT NOT NULL,
    alarm     TEXT NOT NULL REFERENCES alarms (id),
    raised_at BIGINT NOT NULL,
    PRIMARY KEY (device, alarm)
);
CREATE INDEX alarm_devices_by_time ON alarm_devices (device, raised_at, alarm);

CREATE TABLE transitions (
    key      TEXT PRIMARY KEY,
    alarm    TEXT NOT NULL,
    n        BIGINT NOT NULL, -- counts the transitions of the alarm
    position BIGINT NOT NULL,
    kind     TEXT NOT NULL,
    at       BIGINT NOT NULL,
    logged   BIGINT NOT NULL,
    severity INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    why      TEXT NOT NULL    -- the explanation as JSON, '' for none
);
CREATE INDEX transitions_by_alarm ON transitions (alarm, n);

CREATE TABLE cases (
    id         TEXT PRIMARY KEY,
    case_key   TEXT NOT NULL, -- '' for none
    stage      TEXT NOT NULL,
    is_open    INTEGER NOT NULL,
    work_order INTEGER NOT NULL,
    department TEXT NOT NULL,
    grid       TEXT NOT NULL,
    opened     BIGINT NOT NULL,
    deadline   BIGINT NOT NULL, -- 0 for none
    revision   BIGINT NOT NULL,
    data       TEXT NOT NULL    -- the case as JSON, without timeline and alarms
);
CREATE UNIQUE INDEX cases_open_key ON cases (case_key) WHERE is_open = 1 AND case_key <> '';
CREATE INDEX cases_by_key ON cases (case_key, is_open, opened, id);
CREATE INDEX cases_by_time ON cases (work_order, opened, id);
CREATE INDEX cases_by_stage ON cases (work_order, stage, opened, id);
CREATE INDEX cases_by_department ON cases (work_order, department, opened, id);
CREATE INDEX cases_by_grid ON cases (work_order, grid, opened, id);
CREATE INDEX cases_by_open ON cases (work_order, is_open, opened, id);
CREATE INDEX cases_by_department_open ON cases (work_order, department, is_open, opened, id);

-- The timelines. n is the case's revision after the step.
CREATE TABLE case_steps (
    case_id    TEXT NOT NULL REFERENCES cases (id),
    n          BIGINT NOT NULL,
    action     TEXT NOT NULL,
    stage      TEXT NOT NULL,
    actor      TEXT NOT NULL,
    role       TEXT NOT NULL,
    note       TEXT NOT NULL,
    department TEXT NOT NULL,
    alarm      TEXT NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (case_id, n)
);

-- The serial numbers of each day's cases.
CREATE TABLE case_serials (
    day  TEXT PRIMARY KEY,
    last BIGINT NOT NULL
);

CREATE TABLE unit_grids (
    code TEXT PRIMARY KEY,
    data TEXT NOT NULL -- the grid as JSON
);
