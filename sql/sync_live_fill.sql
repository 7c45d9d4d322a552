-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding_1536 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -v page_keys=p.k1 -v side=docs__2 -v keys=k1 -f sql/sync_live_fill.sql
-- The column, where the text is still the one that was embedded; then what is known of each row.
WITH written AS (
    UPDATE :"schema".:"table" AS b SET :"column" = p.embedding FROM :page
    WHERE :same AND :hash IS NOT DISTINCT FROM p.content_hash
    RETURNING :page_keys, p.content_hash
)
INSERT INTO vecferry.:"side" (:keys, content_hash) SELECT * FROM written ORDER BY :keys
ON CONFLICT (:keys) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL;
