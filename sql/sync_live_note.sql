-- psql "$DATABASE_URL" -v queue=docs__2_queue -v ids="'{a,b}'" -f sql/sync_live_note.sql
-- Puts rows on the queue, as the triggers of the live table do.
INSERT INTO vecferry.:"queue" (id) SELECT unnest(:ids::text[]);
