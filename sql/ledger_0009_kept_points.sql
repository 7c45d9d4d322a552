-- psql "$DATABASE_URL" -1 -f sql/ledger_0009_kept_points.sql
-- Version 9: what others had written to a point when the run last looked at it and nobody used it. What it says since tells whether
-- somebody wrote it after the switch.
ALTER TABLE vecferry.point
    -- SHA-256 of the payload; null where the run wrote what is there.
    ADD COLUMN IF NOT EXISTS kept_hash bytea;
