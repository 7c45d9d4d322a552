-- psql "$DATABASE_URL" -v side=docs__3 -v schema=public -v table=docs -v keys='id AS k1' -f sql/expand_known_rows.sql
-- One row for each row of the live table that was looked at, whose vector is in a column of it, or in a row of another table for each
-- model: the hash of its text, or why it has none; and of such a row the transaction that added or changed it, while it is the run's.
CREATE TABLE IF NOT EXISTS vecferry.:"side" AS
    SELECT :keys, NULL::bytea AS content_hash, NULL::text AS refused, NULL::xid AS written, NULL::xid AS old_written FROM :"schema".:"table" LIMIT 0;
ALTER TABLE vecferry.:"side" ALTER COLUMN content_hash SET NOT NULL;
