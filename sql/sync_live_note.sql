-- psql "$DATABASE_URL" -v queue=docs__2_queue -v ids="'{a,b}'" -f sql/sync_live_note.sql
-- Puts rows on the queue, as the triggers of the live table do. Those that are there wait since their last change, not since now.
INSERT INTO vecferry.:"queue" (id, noted_at, noted_in)
SELECT DISTINCT ON (n.id) n.id, coalesce(q.noted_at, clock_timestamp()), coalesce(q.noted_in, pg_current_xact_id())
FROM unnest(:ids::text[]) AS n (id) LEFT JOIN vecferry.:"queue" AS q ON q.id = n.id ORDER BY n.id, q.seq DESC;
