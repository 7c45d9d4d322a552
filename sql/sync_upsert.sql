-- Run by vecferry, as sync_page.sql is: merges the page into the table.
INSERT INTO :"schema".:"table" (id, document, metadata, uri, embedding, content_hash)
SELECT id, document, metadata, uri, embedding, content_hash FROM page
ON CONFLICT (id) DO UPDATE SET
    document = excluded.document, metadata = excluded.metadata, uri = excluded.uri,
    embedding = excluded.embedding, content_hash = excluded.content_hash;
