-- psql "$DATABASE_URL" -v schema=public -v function=match_docs_1536_75933ec1 -v columns='id text, similarity double precision' -v language=sql -v body='$$ SELECT id, 1 - (embedding <=> query_embedding) FROM docs ORDER BY embedding <=> query_embedding LIMIT match_count $$' -v comment='Made by vecferry' -f sql/expand_search_function.sql
-- The nearest rows by the vectors of one model, or a choice between several such functions by the query's dimensions.
CREATE OR REPLACE FUNCTION :"schema".:"function"(query_embedding vector, match_threshold double precision, match_count integer)
RETURNS TABLE (:columns) LANGUAGE :language STABLE AS :body;
COMMENT ON FUNCTION :"schema".:"function"(vector, double precision, integer) IS :'comment';
