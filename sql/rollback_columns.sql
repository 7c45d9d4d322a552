-- psql "$DATABASE_URL" -1 -v schema=public -v table=docs -v column=embedding -v kept=embedding_384 -v working=embedding_1536 -f sql/rollback_columns.sql
-- The reverse of cutover_columns.sql: no vector is lost, whichever column it is in.
ALTER TABLE :"schema".:"table" RENAME COLUMN :"column" TO :"working";
ALTER TABLE :"schema".:"table" RENAME COLUMN :"kept" TO :"column";
