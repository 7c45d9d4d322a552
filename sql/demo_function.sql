-- psql "$DATABASE_URL" -f sql/demo_function.sql
-- What its application searches by, with the index that makes it fast.
CREATE INDEX docstrings_embedding ON docstrings USING hnsw (embedding vector_cosine_ops);
CREATE FUNCTION match_docstrings(query_embedding vector(384), match_threshold double precision, match_count integer)
RETURNS TABLE (id bigint, module text, name text, content text, similarity double precision) LANGUAGE sql STABLE AS $$
    SELECT d.id, d.module, d.name, d.content, 1 - (d.embedding <=> query_embedding)
    FROM docstrings d
    WHERE 1 - (d.embedding <=> query_embedding) > match_threshold
    ORDER BY d.embedding <=> query_embedding
    LIMIT match_count
$$;
