-- psql "$DATABASE_URL" -v schema=public -v function=search_chunks_1 -v type=vector -v chunk=text -v document=text -v body='AS $$ SELECT id, id, document, document, 0::double precision, id, 1::bigint FROM docs LIMIT $2 $$' -v comment='Made by vecferry' -f sql/expand_model_search.sql
-- The chunks nearest to a query by the vectors of one model. One SELECT and no settings, so that the planner puts it into the
-- query that calls it, and EXPLAIN of that shows the index.
CREATE OR REPLACE FUNCTION :"schema".:"function"(
    query          :type,
    top_k          integer DEFAULT 5,
    filter         jsonb DEFAULT NULL,
    min_similarity double precision DEFAULT NULL
) RETURNS TABLE (chunk_id :chunk, document_id :document, title text, content text, similarity double precision, model text, rank bigint)
LANGUAGE sql STABLE :body;
COMMENT ON FUNCTION :"schema".:"function"(:type, integer, jsonb, double precision) IS :'comment';
