-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -v role=reader -f sql/grant_function_no_more.sql
-- A copy of a function that runs with its owner's rights is for that function alone to call.
REVOKE EXECUTE ON FUNCTION :function FROM :role;
