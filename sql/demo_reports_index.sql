-- psql "$DATABASE_URL" -f sql/demo_reports_index.sql
-- The index of the guide's database, made once the rows are there.
CREATE INDEX reports_embedding ON reports USING ivfflat (embedding vector_cosine_ops) WITH (lists = 4);
