-- +goose Up
-- When the platform heard nobody, by the log: no silence of the devices, but nothing is known of what they measured.
CREATE TABLE outages (
    began BIGINT PRIMARY KEY,
    ended BIGINT NOT NULL
);
CREATE INDEX outages_ended ON outages (ended);
-- Those that are known: between the times at which the platform ran, and until it began to run, or had no room, last.
INSERT INTO outages (began, ended)
SELECT ran.ended, MIN(again.at)
FROM uptimes ran
JOIN (SELECT began AS at FROM uptimes UNION SELECT at FROM last_heard WHERE device = '') again ON again.at > ran.ended
WHERE NOT EXISTS (SELECT 1 FROM uptimes o WHERE o.began <= ran.ended AND o.ended > ran.ended)
GROUP BY ran.ended;
-- Where it was not noted when it ran, the last one, if the devices say when it began: nobody was heard since.
INSERT INTO outages (began, ended)
SELECT MAX(d.at), p.at
FROM last_heard p
JOIN last_heard d ON d.device <> ''
WHERE p.device = '' AND NOT EXISTS (SELECT 1 FROM uptimes)
GROUP BY p.at
HAVING MAX(d.at) < p.at;
-- That of the platform itself is when the newest record was logged; it was when it began to run.
UPDATE last_heard SET at = (SELECT MAX(at) FROM (SELECT at FROM last_heard UNION SELECT ended FROM uptimes) heard) WHERE device = '';
