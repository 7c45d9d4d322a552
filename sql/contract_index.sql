-- psql "$DATABASE_URL" -v schema=public -v index=docs_hnsw -f sql/contract_index.sql
DROP INDEX IF EXISTS :"schema".:"index";
