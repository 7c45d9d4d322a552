-- psql "$DATABASE_URL" -v schema=public -v table=docs -v column=embedding_old -v type=vector -v dims=384 -f sql/restore_column.sql
-- The column that the old vectors of a snapshot are written into. Rewrites nothing.
ALTER TABLE :"schema".:"table" ADD COLUMN :"column" :"type"(:dims);
