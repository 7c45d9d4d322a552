-- psql "$DATABASE_URL" -v schema=public -v table=docs -v run_id=RUN -v target=0 -f sql/rollback_sync_remove.sql
-- Takes out the rows that a sync added.
DELETE FROM :"schema".:"table" AS held
USING (SELECT DISTINCT ON (id) id, present FROM vecferry.undo
       WHERE run_id = :'run_id' AND target = :target ORDER BY id, seq) AS first
WHERE held.id = first.id AND NOT first.present;
