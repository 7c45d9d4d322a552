-- psql "$DATABASE_URL" -f sql/demo_reports.sql
-- What `vecferry demo clip-to-megadescriptor` migrates: reports of parts of photographs, an IVFFlat index on their vectors, a function
-- that searches them and one that writes them.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE reports (
    id         bigint PRIMARY KEY,
    image_path text NOT NULL,
    x          real NOT NULL,
    y          real NOT NULL,
    width      real NOT NULL,
    height     real NOT NULL,
    subject    text NOT NULL,
    embedding  vector(1280)
);
CREATE FUNCTION match_reports(query_embedding vector(1280), match_threshold double precision, match_count integer)
RETURNS TABLE (id bigint, image_path text, subject text, similarity double precision) LANGUAGE sql STABLE AS $$
    SELECT r.id, r.image_path, r.subject, 1 - (r.embedding <=> query_embedding)
    FROM public.reports r
    WHERE 1 - (r.embedding <=> query_embedding) > match_threshold
    ORDER BY r.embedding <=> query_embedding
    LIMIT match_count
$$;
CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(1280))
RETURNS void LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    UPDATE reports SET embedding = new_embedding WHERE id = report_id;
END
$$;
