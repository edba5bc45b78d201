-- +goose Up
-- Each alarm that joins a case has the devices of all its alarms counted.
CREATE INDEX alarm_devices_by_alarm ON alarm_devices (alarm, device);
