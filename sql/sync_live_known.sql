-- psql "$DATABASE_URL" -v id=s.k1 -v page="(VALUES ('a')) AS p (k1)" -v side=docs__2 -v keys=k1 -f sql/sync_live_known.sql
-- The rows of a page of which something is known, and of which text.
SELECT :id, s.content_hash FROM :page JOIN vecferry.:"side" AS s USING (:keys);
