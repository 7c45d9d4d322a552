-- psql "$DATABASE_URL" -v role=reader -v schema=public -v table=docs -f sql/grant_read_only.sql
-- What a role needs to search one migrated table and to see the state of the runs, and nothing more.
GRANT USAGE ON SCHEMA :"schema", vecferry TO :"role";
GRANT SELECT ON :"schema".:"table", vecferry.status TO :"role";
GRANT EXECUTE ON FUNCTION vecferry.cosine_similarity(vector, vector) TO :"role";
GRANT EXECUTE ON FUNCTION vecferry.find_similar_documents(regclass, vector, integer, jsonb, double precision) TO :"role";
