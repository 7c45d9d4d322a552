-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding -v renamed=embedding_old -f sql/cutover_column.sql
-- The column of a model gets the name that its dimensions give; back by the same with the names the other way round.
ALTER TABLE :"schema".:"table" RENAME COLUMN :"column" TO :"renamed";
