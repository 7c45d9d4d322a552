-- psql "$DATABASE_URL" -v schema=public -v function=search_chunks -v type=vector -v chunk=text -v document=text -v body='$$ BEGIN RETURN; END $$' -v comment='Made by vecferry' -f sql/expand_models_search.sql
-- The chunks nearest to a query by the vectors of the model that is named, or else of the active one. Scans go on until enough
-- rows pass the filter, and what may be seen; each is planned for the values that it is asked with, since nobody could tell the
-- rows of a LIMIT that is not known, and the index would be passed by. The first line loads pgvector's library: before that,
-- only a superuser may name its settings.
SELECT CAST('[1]' AS :type);
CREATE OR REPLACE FUNCTION :"schema".:"function"(
    query          :type,
    top_k          integer DEFAULT 5,
    model_name     text DEFAULT NULL,
    filter         jsonb DEFAULT NULL,
    min_similarity double precision DEFAULT NULL
) RETURNS TABLE (chunk_id :chunk, document_id :document, title text, content text, similarity double precision, model text, rank bigint)
LANGUAGE plpgsql STABLE
SET hnsw.iterative_scan = 'strict_order'
SET plan_cache_mode = 'force_custom_plan'
AS :body;
COMMENT ON FUNCTION :"schema".:"function"(:type, integer, text, jsonb, double precision) IS :'comment';
