-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding_1536 -v page="(VALUES ('a')) AS p (k1)" -v same='p.k1 = b.id' -f sql/sync_live_empty.sql
-- Takes the vectors of rows out of the column.
UPDATE :"schema".:"table" AS b SET :"column" = NULL FROM :page WHERE :same AND b.:"column" IS NOT NULL;
