-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -v role=reader -f sql/grant_function_no_more.sql
-- A copy of a function is for those who may call that function, and not for those whom default privileges name.
REVOKE ALL ON FUNCTION :function FROM :role CASCADE;
