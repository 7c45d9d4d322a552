-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v index=docs_metadata -f sql/expand_gin.sql
-- Serves metadata @> '{"key": "value"}' at half the size of the default operator class.
CREATE INDEX :"index" ON :"schema".:"table" USING gin (metadata jsonb_path_ops);
