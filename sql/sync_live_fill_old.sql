-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -f sql/sync_live_fill_old.sql
-- The old column after a cutover, so that it can be gone back to.
UPDATE :"schema".:"table" AS b SET :"column" = p.embedding FROM :page
WHERE :same AND :hash IS NOT DISTINCT FROM p.content_hash;
