-- psql "$DATABASE_URL" -v side=docs__2 -v keys=k1 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -f sql/sync_live_upsert.sql
-- Vectors that lie beside the live table, where some of the rows may be there.
INSERT INTO vecferry.:"side" (:keys, content_hash, embedding)
SELECT :keys, content_hash, embedding FROM :page ORDER BY :keys
ON CONFLICT (:keys) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL, embedding = excluded.embedding;
