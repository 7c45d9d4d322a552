-- psql "$DATABASE_URL" -v id=p.k1 -v hash='sha256(b.document::bytea)' -v page="(VALUES ('a')) AS p (k1)" -v schema=public -v table=docs -v same='p.k1 = b.id' -f sql/sync_live_rows.sql
-- What the rows of a page hold, a number for each column. Others leave them alone until the transaction ends.
SELECT :id, :hash, (SELECT jsonb_object_agg(key, hashtextextended(value, 0)) FROM jsonb_each_text(to_jsonb(b)))
FROM :page JOIN :"schema".:"table" AS b ON :same FOR UPDATE OF b;
