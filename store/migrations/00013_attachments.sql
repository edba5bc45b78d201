-- +goose Up
-- The photos of cases; the files lie in the folder photos.
CREATE TABLE attachments (
    case_id TEXT NOT NULL REFERENCES cases (id),
    photo   TEXT NOT NULL, -- SHA-256 of the file
    at      BIGINT NOT NULL,
    data    TEXT NOT NULL, -- the attachment as JSON
    PRIMARY KEY (case_id, photo)
);
