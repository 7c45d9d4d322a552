-- psql "$DATABASE_URL" -v queue=docs__1_queue -v schema=public -v table=docs -v trigger_write=docs_write -v trigger_update=docs_update -v trigger_truncate=docs_truncate -v trigger_vector=docs_vector -f sql/contract_queue.sql
-- The reverse of expand_queue.sql: changes are noted no more, and those that were are forgotten.
DROP TRIGGER IF EXISTS :"trigger_write" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"trigger_update" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"trigger_truncate" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"trigger_vector" ON :"schema".:"table";
DROP TABLE IF EXISTS vecferry.:"queue";
