-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding_1536 -v type=vector -v dims=1536 -f sql/expand_column.sql
-- Rewrites nothing: the column is null until the vectors come.
ALTER TABLE :"schema".:"table" ADD COLUMN IF NOT EXISTS :"column" :"type"(:dims);
