-- psql "$DATABASE_URL" -v live_id=b.id -v document=b.document -v hash='sha256(b.document::bytea)' -v lacks='s.lacks IS NOT FALSE' -v rows=public.docs -v known='(SELECT k1, content_hash, refused, embedding IS NULL AS lacks FROM vecferry.docs__2 OFFSET 0)' -v same='s.k1 = b.id' -v queue=docs__2_queue -f sql/sync_live_coverage.sql
-- The rows that say something and have no vector, by the table itself; of each, why, where that is noted.
WITH saying AS (
    SELECT :live_id AS id, :lacks AS without, s.refused IS NOT NULL AND s.content_hash = :hash AS refused
    FROM :rows AS b LEFT JOIN :known AS s ON :same WHERE :document IS NOT NULL
), told AS (
    SELECT id, without, without AND refused AS refused, without AND (
        coalesce(id IN (SELECT id FROM vecferry.:"queue" WHERE id IS NOT NULL), false)
        OR EXISTS (SELECT 1 FROM vecferry.:"queue" WHERE id IS NULL)) AS waiting
    FROM saying
)
SELECT count(*), count(*) FILTER (WHERE without), count(*) FILTER (WHERE refused), count(*) FILTER (WHERE waiting AND NOT refused),
    (array_agg(id ORDER BY id) FILTER (WHERE without AND NOT waiting AND NOT refused))[1 : 1000]
FROM told;
