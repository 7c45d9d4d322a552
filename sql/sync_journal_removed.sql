-- psql "$DATABASE_URL" -v schema=public -v table=docs -v run_id=RUN -v target=0 -v ids="'{a,b}'" -f sql/sync_journal_removed.sql
-- Keeps what a sync is about to remove, so that it can be taken back.
INSERT INTO vecferry.undo (run_id, target, id, present, document, metadata, uri, embedding, content_hash)
SELECT :'run_id', :target, id, true, document, metadata, uri, embedding::text, content_hash
FROM :"schema".:"table" WHERE id = ANY(:ids);
