-- psql "$DATABASE_URL" -1 -v schema=public -v table=docs -v column=embedding -v kept=embedding_384 -v working=embedding_1536 -f sql/cutover_columns.sql
-- The old vectors step aside under a name of their own, and the new ones take the name that people know.
ALTER TABLE :"schema".:"table" RENAME COLUMN :"column" TO :"kept";
ALTER TABLE :"schema".:"table" RENAME COLUMN :"working" TO :"column";
