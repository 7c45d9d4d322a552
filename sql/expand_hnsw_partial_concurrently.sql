-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v index=docs_hnsw_1 -v operand=embedding -v opclass=vector_cosine_ops -v m=16 -v ef_construction=100 -v only="id = '1'" -f sql/expand_hnsw_partial_concurrently.sql
-- Of one model's rows alone, where several share a column: its searches pass by no vectors of the others.
CREATE INDEX CONCURRENTLY :"index" ON :"schema".:"table" USING hnsw ((:operand) :"opclass")
    WITH (m = :m, ef_construction = :ef_construction) WHERE :only;
