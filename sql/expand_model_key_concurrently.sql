-- psql "$DATABASE_URL" -v schema=public -v table=docs -v index=docs_chunk_model_key -v chunk=id -v model=document -f sql/expand_model_key_concurrently.sql
-- Others go on writing to the table. A build that is cut off leaves an index that is not valid: drop it, then build again.
CREATE UNIQUE INDEX CONCURRENTLY :"index" ON :"schema".:"table" (:"chunk", :"model");
