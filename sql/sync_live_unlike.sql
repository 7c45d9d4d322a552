-- psql "$DATABASE_URL" -v id=p.k1 -v schema=public -v table=docs -v column=embedding -v page="(VALUES ('a', NULL::vector)) AS p (k1, embedding)" -v same='p.k1 = b.id' -v far=0.001 -f sql/sync_live_unlike.sql
-- The rows of a page whose vector in the column is none, or not the page's: others have written it.
SELECT :id FROM :page JOIN :"schema".:"table" AS b ON :same
WHERE b.:"column" IS DISTINCT FROM p.embedding AND (b.:"column" <=> p.embedding <= :far) IS NOT TRUE;
