-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding -f sql/contract_column.sql
-- Its indexes go with it.
ALTER TABLE :"schema".:"table" DROP COLUMN IF EXISTS :"column";
