-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v index=docs_hnsw -v operand=embedding -v opclass=vector_cosine_ops -v m=16 -v ef_construction=100 -f sql/expand_hnsw_concurrently.sql
-- Others go on writing to the table. A build that is cut off leaves an index that is not valid: drop it, then build again.
CREATE INDEX CONCURRENTLY :"index" ON :"schema".:"table" USING hnsw ((:operand) :"opclass")
    WITH (m = :m, ef_construction = :ef_construction);
