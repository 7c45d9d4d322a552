-- psql "$DATABASE_URL" -v schema=public -v view=embedding_models -v type=bigint -v set=1 -f sql/expand_models_view.sql
-- The registry as applications read it, beside the tables that it is of.
CREATE OR REPLACE VIEW :"schema".:"view" AS
SELECT CAST(coalesce(external_id, model::text) AS :type) AS id, substr(name, length(provider) + 2) AS model_name, provider,
       dimensions AS dimension, metric AS distance, normalized, space, similarity_threshold, state = 'active' AS is_active,
       created_at
FROM vecferry.model WHERE set_id = :set AND state <> 'retired';
