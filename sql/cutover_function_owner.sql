-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -v role=reader -f sql/cutover_function_owner.sql
ALTER FUNCTION :function OWNER TO :"role";
