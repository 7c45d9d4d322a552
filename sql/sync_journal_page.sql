-- Run by vecferry, as sync_page.sql is: keeps what a page replaces in the table, so that the sync can be taken back.
INSERT INTO vecferry.undo (run_id, target, id, present, document, metadata, uri, embedding, content_hash)
SELECT :'run_id', :target, page.id, held.id IS NOT NULL, held.document, held.metadata, held.uri, held.embedding::text,
       held.content_hash
FROM page LEFT JOIN :"schema".:"table" AS held ON held.id = page.id;
