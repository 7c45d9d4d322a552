-- psql "$DATABASE_URL" -f sql/expand_functions.sql
-- For the users of a migrated table: SELECT * FROM vecferry.find_similar_documents('docs', '[0.1, …]', 5, '{"kind": "x"}', 0.5);
-- Loads pgvector's library: before that, only a superuser may name its settings.
SELECT '[1]'::vector;

CREATE OR REPLACE FUNCTION vecferry.cosine_similarity(a vector, b vector) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN 1 - (a <=> b);

-- The nearest documents of a table that vecferry made: through its index and by its metric, which are read from the
-- catalogue. similarity is 1 − distance for cosine, 1 / (1 + distance) for l2, and the inner product for ip.
-- strict_order goes on scanning until enough rows pass the filter; without it a 1 % filter finds almost nothing.
CREATE OR REPLACE FUNCTION vecferry.find_similar_documents(
    source         regclass,
    query          vector,
    match_count    integer DEFAULT 10,
    filter         jsonb DEFAULT NULL,
    min_similarity double precision DEFAULT NULL
) RETURNS TABLE (id text, document text, metadata jsonb, uri text, similarity double precision)
LANGUAGE plpgsql STABLE
SET hnsw.iterative_scan = 'strict_order'
AS $$
DECLARE
    opclass text;
    operand text := 'embedding';
    probe   text;
    meaning text;
    metric  text;
BEGIN
    SELECT o.opcname, pg_get_indexdef(i.indexrelid, 1, true) INTO opclass, operand
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am m ON m.oid = x.relam AND m.amname = 'hnsw'
    JOIN pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indrelid = source AND i.indisvalid
    LIMIT 1;
    operand := coalesce(operand, 'embedding');
    probe := CASE WHEN opclass LIKE 'halfvec%' THEN 'halfvec' ELSE 'vector' END;
    metric := CASE WHEN opclass LIKE '%\_l2\_ops' THEN '<->' WHEN opclass LIKE '%\_ip\_ops' THEN '<#>' ELSE '<=>' END;
    meaning := CASE metric WHEN '<->' THEN '1 / (1 + distance)' WHEN '<#>' THEN '-distance' ELSE '1 - distance' END;
    RETURN QUERY EXECUTE format(
        'SELECT near.id, near.document, near.metadata, near.uri, %1$s
         FROM (SELECT t.id, t.document, t.metadata, t.uri, (%2$s) %3$s $1::%4$s AS distance
               FROM %5$s AS t WHERE $2 IS NULL OR t.metadata @> $2
               ORDER BY (%2$s) %3$s $1::%4$s LIMIT $3) AS near
         WHERE $4 IS NULL OR %1$s >= $4
         ORDER BY near.distance',
        meaning, operand, metric, probe, source)
    USING query, filter, match_count, min_similarity;
END
$$;
