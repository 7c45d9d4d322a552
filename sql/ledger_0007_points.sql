-- psql "$DATABASE_URL" -1 -f sql/ledger_0007_points.sql
-- Version 7: what was written of each point of a store that keeps no such notes itself. It tells what changed since at its
-- source from what somebody else wrote.
CREATE TABLE IF NOT EXISTS vecferry.point (
    run_id        text NOT NULL REFERENCES vecferry.run ON DELETE CASCADE,
    target        integer NOT NULL,
    id            text NOT NULL,
    -- SHA-256 of the document that the vector is of; null: to be looked at anew.
    document_hash bytea,
    -- SHA-256 of the payload that was written with it; null where none was.
    payload_hash  bytea,
    -- The same of a write that began, and was not acknowledged yet.
    intended_hash bytea,
    -- SHA-256 of the vectors that were written beside it; null where none were.
    others_hash   bytea,
    -- Set aside: without a vector, and why is in the quarantine.
    refused       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, target, id)
);
