-- psql "$DATABASE_URL" -v side=docs__2 -v schema=public -v table=docs -v keys='id AS k1' -v type=vector -v dims=1536 -v toast_tuple_target=8160 -f sql/expand_side_table.sql
-- One row for each row of the live table that was looked at: the hash of its text, and its vector or why it has none.
CREATE TABLE IF NOT EXISTS vecferry.:"side" WITH (toast_tuple_target = :toast_tuple_target) AS
    SELECT :keys, NULL::bytea AS content_hash, NULL::text AS refused, CAST(NULL AS :"type"(:dims)) AS embedding
    FROM :"schema".:"table" LIMIT 0;
ALTER TABLE vecferry.:"side" ALTER COLUMN content_hash SET NOT NULL;
