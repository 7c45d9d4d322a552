-- psql "$DATABASE_URL" -v side=docs__2 -v schema=public -v table=docs -v same='s.k1 = b.id' -f sql/sync_live_truncated.sql
-- Removes what is known of rows that are there no longer.
DELETE FROM vecferry.:"side" AS s WHERE NOT EXISTS (SELECT 1 FROM :"schema".:"table" AS b WHERE :same);
