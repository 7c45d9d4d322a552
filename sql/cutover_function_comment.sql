-- psql "$DATABASE_URL" -v function='vecferry.cosine_similarity(vector, vector)' -v comment='Made by vecferry' -f sql/cutover_function_comment.sql
COMMENT ON FUNCTION :function IS :'comment';
