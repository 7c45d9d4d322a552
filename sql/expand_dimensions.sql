-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v type=vector -v dims=384 -f sql/expand_dimensions.sql
ALTER TABLE :"schema".:"table" ALTER COLUMN embedding TYPE :"type"(:dims);
