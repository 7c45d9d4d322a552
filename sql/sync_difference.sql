-- Run by vecferry, as sync_page.sql is: the rows of the page that the table lacks or holds otherwise, with what the table holds now.
-- A vector is the same within a tolerance relative to its norm: some stores hand out vectors that are off by 1e-6.
SELECT page.id, held.id IS NOT NULL AS present, held.document, held.metadata::text, held.uri, held.content_hash
FROM page LEFT JOIN :"schema".:"table" AS held ON held.id = page.id
WHERE held.id IS NULL
   OR held.content_hash IS DISTINCT FROM page.content_hash
   OR held.document IS DISTINCT FROM page.document
   OR held.metadata IS DISTINCT FROM page.metadata
   OR held.uri IS DISTINCT FROM page.uri
   OR (held.embedding IS NULL) <> (page.embedding IS NULL)
   OR (held.embedding <> page.embedding
       AND NOT held.embedding <-> page.embedding <= :tolerance * vector_norm(page.embedding::vector));
