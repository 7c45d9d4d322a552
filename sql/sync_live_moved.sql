-- psql "$DATABASE_URL" -v live_id=b.id -v side_id=s.k1 -v first=id -v document=b.document -v rows=public.docs -v side=docs__2 -v same='s.k1 = b.id' -v queue=docs__2_queue -f sql/sync_live_moved.sql
-- Puts rows on the queue that are meant by now and were not, or were and are not: what decides on it may stand in another table.
INSERT INTO vecferry.:"queue" (id)
SELECT coalesce(:live_id, :side_id) FROM :rows AS b FULL JOIN vecferry.:"side" AS s ON :same
WHERE (s.k1 IS NULL AND :document IS NOT NULL) OR b.:"first" IS NULL
EXCEPT SELECT id FROM vecferry.:"queue";
