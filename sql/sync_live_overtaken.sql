-- psql "$DATABASE_URL" -v id=p.k1 -v page="(VALUES ('a', '\x00'::bytea)) AS p (k1, content_hash)" -v schema=public -v table=docs -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -f sql/sync_live_overtaken.sql
-- The rows of a page that say something else by now, or are gone.
SELECT :id FROM :page LEFT JOIN :"schema".:"table" AS b ON :same WHERE :hash IS DISTINCT FROM p.content_hash;
