-- psql "$DATABASE_URL" -v schema=public -v table=docs -v type=vector -v run_id=RUN -v target=0 -f sql/rollback_sync_restore.sql
-- Puts back the rows that a sync replaced or removed, as they were before its first touch.
INSERT INTO :"schema".:"table" (id, document, metadata, uri, embedding, content_hash)
SELECT id, document, metadata, uri, CAST(embedding AS :"type"), content_hash
FROM (SELECT DISTINCT ON (id) * FROM vecferry.undo
      WHERE run_id = :'run_id' AND target = :target ORDER BY id, seq) AS first
WHERE present
ON CONFLICT (id) DO UPDATE SET
    document = excluded.document, metadata = excluded.metadata, uri = excluded.uri,
    embedding = excluded.embedding, content_hash = excluded.content_hash;
