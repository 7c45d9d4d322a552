-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v vector='v.chunk = s.k1 AND v.model = 7' -v live_schema=public -v live=docs -v side=docs__2 -v same='s.k1 = b.id' -f sql/sync_model_truncated.sql
-- Removes what is known of rows that are there no longer, and their vectors of one model.
WITH gone AS (
    DELETE FROM vecferry.:"side" AS s WHERE NOT EXISTS (SELECT 1 FROM :"live_schema".:"live" AS b WHERE :same) RETURNING s.*
)
DELETE FROM :"schema".:"table" AS v USING gone AS s WHERE :vector;
