-- psql "$DATABASE_URL" -v schema=public -v title=os -v contents="ARRAY['Miscellaneous operating system interfaces']" -v vectors="ARRAY[array_fill(0.1::real, ARRAY[384])::vector]" -f sql/demo_document.sql
-- A document of `vecferry demo multi-model` with its chunks and their vectors.
WITH document AS (
    INSERT INTO :"schema".documents (title) VALUES (:'title') RETURNING id
), given AS (
    SELECT * FROM unnest(:contents::text[], :vectors::text[]) WITH ORDINALITY AS g(content, embedding, at)
), chunk AS (
    INSERT INTO :"schema".document_chunks (document_id, chunk_index, content)
    SELECT document.id, at - 1, content FROM document, given RETURNING id, chunk_index
)
INSERT INTO :"schema".chunk_embeddings (chunk_id, embedding)
SELECT chunk.id, given.embedding::vector FROM chunk JOIN given ON given.at - 1 = chunk.chunk_index;
