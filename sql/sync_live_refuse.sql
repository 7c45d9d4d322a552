-- psql "$DATABASE_URL" -v side=docs__2 -v keys=k1 -v page="(VALUES ('b', '\x00'::bytea, 'too long')) AS p (k1, content_hash, refused)" -f sql/sync_live_refuse.sql
-- Rows whose text has no vector, and why.
INSERT INTO vecferry.:"side" (:keys, content_hash, refused) SELECT p.* FROM :page;
