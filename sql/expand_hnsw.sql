-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v index=docs_hnsw -v operand=embedding -v opclass=vector_cosine_ops -v m=16 -v ef_construction=100 -f sql/expand_hnsw.sql
-- For vectors of 2,001 to 4,000 dimensions the operand is embedding::halfvec(3072): queries must order by the same cast to use it.
CREATE INDEX :"index" ON :"schema".:"table" USING hnsw ((:operand) :"opclass")
    WITH (m = :m, ef_construction = :ef_construction);
