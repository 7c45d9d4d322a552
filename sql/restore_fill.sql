-- psql "$DATABASE_URL" -v id=p.k1 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v schema=public -v table=docs -v column=embedding -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -v first=id -v keys=k1 -v page_keys=p.k1 -f sql/restore_fill.sql
-- The old vectors of a page of a snapshot, where the row is there, says what it said then, and has nothing in the column. What became of each.
WITH page AS MATERIALIZED (
    SELECT * FROM :page
), written AS (
    UPDATE :"schema".:"table" AS b SET :"column" = p.embedding FROM page AS p
    WHERE :same AND :hash IS NOT DISTINCT FROM p.content_hash AND b.:"column" IS NULL
    RETURNING :page_keys, true AS there
)
SELECT :id, CASE WHEN w.there THEN 'restored'
                 WHEN b.:"first" IS NULL THEN 'gone'
                 WHEN b.:"column" IS NULL THEN 'changed'
                 WHEN b.:"column"::text = p.embedding::text THEN 'restored'
                 ELSE 'taken' END
FROM page AS p LEFT JOIN written AS w USING (:keys) LEFT JOIN :"schema".:"table" AS b ON :same;
