-- psql "$DATABASE_URL" -v schema=public -v table=docs -v model=model_id -v default='DEFAULT 1' -f sql/expand_model_id.sql
-- Rewrites nothing: the rows that are there, and those of an application that names no model, are of the one they came with.
ALTER TABLE :"schema".:"table" ADD COLUMN :"model" bigint NOT NULL :default;
