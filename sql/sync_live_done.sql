-- psql "$DATABASE_URL" -v queue=docs__2_queue -v entries="'{1,2}'" -f sql/sync_live_done.sql
-- Takes entries off the queue whose rows are right.
DELETE FROM vecferry.:"queue" WHERE seq = ANY(:entries);
