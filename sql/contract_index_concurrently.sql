-- psql "$DATABASE_URL" -v schema=public -v index=docs_hnsw -f sql/contract_index_concurrently.sql
-- Before expand_hnsw_concurrently.sql: what a build that was cut off left is no good, and has the name.
DROP INDEX CONCURRENTLY IF EXISTS :"schema".:"index";
