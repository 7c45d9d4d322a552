-- psql "$DATABASE_URL" -v live_id=b.id -v side_id=s.k1 -v first=id -v document=b.document -v hash='sha256(b.document::bytea)' -v lacks='s.lacks IS NOT FALSE' -v rows=public.docs -v known='(SELECT k1, content_hash, refused, embedding IS NULL AS lacks FROM vecferry.docs__2 OFFSET 0)' -v same='s.k1 = b.id' -v queue=docs__2_queue -v limited=false -f sql/sync_live_difference.sql
-- A live table held against its new vectors, of one moment: every row is right, or in the queue, or told here.
WITH looked AS (
    SELECT coalesce(:live_id, :side_id) AS id,
           CASE WHEN b.:"first" IS NULL THEN 'orphaned'
                WHEN :document IS NULL THEN
                    CASE WHEN s.k1 IS NOT NULL THEN 'orphaned' WHEN :lacks THEN 'silent' ELSE 'added' END
                WHEN s.k1 IS NULL THEN CASE WHEN :lacks THEN 'missing' ELSE 'added' END
                WHEN s.content_hash <> :hash THEN 'stale'
                WHEN s.refused IS NOT NULL THEN 'quarantined'
                WHEN :lacks THEN 'missing'
                ELSE 'right' END AS kind
    FROM :rows AS b FULL JOIN :known AS s ON :same
), waiting AS (
    SELECT DISTINCT id FROM vecferry.:"queue"
), told AS (
    SELECT kind, id FROM looked
    WHERE kind NOT IN ('right', 'silent')
      AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.id = looked.id OR w.id IS NULL)
)
SELECT kind, count(*), (array_agg(id ORDER BY id))[1 : 1000] FROM told GROUP BY kind
UNION ALL
SELECT 'compared', count(*), NULL FROM looked WHERE kind <> 'silent' AND (kind <> 'missing' OR NOT :limited);
