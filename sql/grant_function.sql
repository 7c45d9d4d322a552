-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -v role=reader -f sql/grant_function.sql
GRANT EXECUTE ON FUNCTION :function TO :role;
