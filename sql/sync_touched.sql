-- psql "$DATABASE_URL" -v schema=public -v table=docs -v run_id=RUN -v target=0 -f sql/sync_touched.sql
-- Rows that a sync has inserted, updated and deleted so far.
SELECT count(*) FILTER (WHERE NOT first.present),
       count(*) FILTER (WHERE first.present AND held.id IS NOT NULL),
       count(*) FILTER (WHERE first.present AND held.id IS NULL)
FROM (SELECT DISTINCT ON (id) id, present FROM vecferry.undo
      WHERE run_id = :'run_id' AND target = :target ORDER BY id, seq) AS first
LEFT JOIN :"schema".:"table" AS held ON held.id = first.id;
