-- psql "$DATABASE_URL" -v queue=docs__2_queue -v ids="'{a,b}'" -f sql/sync_live_passed_by.sql
-- Puts rows on the queue that somebody has at hand, as if he had just changed them; they wait since their last change all the same.
INSERT INTO vecferry.:"queue" (id, noted_at)
SELECT n.id, coalesce(max(q.noted_at), clock_timestamp())
FROM unnest(:ids::text[]) AS n (id) LEFT JOIN vecferry.:"queue" AS q ON q.id = n.id GROUP BY n.id ORDER BY n.id;
