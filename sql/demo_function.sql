-- psql "$DATABASE_URL" -f sql/demo_function.sql
-- What its application searches by, with the index that makes it fast: a role that may not read the table gets the public rows.
CREATE INDEX docstrings_embedding ON docstrings USING hnsw (embedding vector_cosine_ops);
CREATE FUNCTION match_docstrings(query_embedding vector(384), match_threshold double precision, match_count integer)
RETURNS TABLE (id bigint, module text, name text, content text, similarity double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
    SELECT d.id, d.module, d.name, d.content, 1 - (d.embedding <=> query_embedding)
    FROM docstrings d
    WHERE d.public AND 1 - (d.embedding <=> query_embedding) > match_threshold
    ORDER BY d.embedding <=> query_embedding
    LIMIT match_count
$$;
DO $$ BEGIN CREATE ROLE docstrings_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
REVOKE EXECUTE ON FUNCTION match_docstrings FROM PUBLIC;
GRANT EXECUTE ON FUNCTION match_docstrings TO docstrings_reader;
