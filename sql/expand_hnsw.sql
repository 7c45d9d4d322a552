-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v index=docs_hnsw -v opclass=vector_cosine_ops -v m=16 -v ef_construction=100 -f sql/expand_hnsw.sql
CREATE INDEX :"index" ON :"schema".:"table" USING hnsw (embedding :"opclass")
    WITH (m = :m, ef_construction = :ef_construction);
