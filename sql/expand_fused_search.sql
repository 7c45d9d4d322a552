-- psql "$DATABASE_URL" -v schema=public -v function=search_chunks_multi -v type=vector -v chunk=text -v document=text -v body='$$ BEGIN RETURN; END $$' -v comment='Made by vecferry' -f sql/expand_fused_search.sql
-- The chunks nearest to a text by several models, each asked with its own vector of it, fused by reciprocal rank.
CREATE OR REPLACE FUNCTION :"schema".:"function"(
    queries        :type[],
    model_names    text[],
    aggregation    text DEFAULT 'union',
    top_k          integer DEFAULT 5,
    filter         jsonb DEFAULT NULL,
    min_similarity double precision DEFAULT NULL
) RETURNS TABLE (chunk_id :chunk, document_id :document, title text, content text, score double precision, models text[],
                 ranks bigint[], similarities double precision[], rank bigint)
LANGUAGE plpgsql STABLE AS :body;
COMMENT ON FUNCTION :"schema".:"function"(:type[], text[], text, integer, jsonb, double precision) IS :'comment';
