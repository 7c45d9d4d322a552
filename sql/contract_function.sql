-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -f sql/contract_function.sql
DROP FUNCTION :function;
