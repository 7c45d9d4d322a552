-- psql "$DATABASE_URL" -1 -f sql/ledger_0008_registry.sql
-- Version 8: sets of tables that serve several models at once: documents, their chunks, and the vectors of these by model.
CREATE TABLE IF NOT EXISTS vecferry.model_tables (
    set_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunks_schema     text NOT NULL,
    chunks_table      text NOT NULL,
    embeddings_schema text NOT NULL,
    embeddings_table  text NOT NULL,
    -- Which column plays which part; as tasks.stores.postgres.model_tables writes it.
    roles             jsonb NOT NULL,
    -- What was there before, for the way back.
    before            jsonb NOT NULL DEFAULT '{}',
    -- What a row r of the table adds to, as SQL of the numbers of models: 0 stands for the chunks that say something.
    counts_of_chunk   text NOT NULL,
    counts_of_embedding text NOT NULL DEFAULT '(NULL::bigint)',
    -- Whether what was there before the triggers is counted too.
    counted           boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chunks_schema, chunks_table),
    UNIQUE (embeddings_schema, embeddings_table)
);

ALTER TABLE vecferry.model
    ADD COLUMN IF NOT EXISTS set_id      bigint REFERENCES vecferry.model_tables ON DELETE CASCADE,
    -- As it is opened: provider/model[@revision][?option=value].
    ADD COLUMN IF NOT EXISTS name        text,
    ADD COLUMN IF NOT EXISTS provider    text,
    ADD COLUMN IF NOT EXISTS normalized  boolean,
    ADD COLUMN IF NOT EXISTS vector_type text NOT NULL DEFAULT 'vector',
    ADD COLUMN IF NOT EXISTS similarity_threshold double precision,
    -- What the table of the vectors calls it, where that is not its number here.
    ADD COLUMN IF NOT EXISTS external_id text,
    ADD COLUMN IF NOT EXISTS created_at  timestamptz NOT NULL DEFAULT now(),
    -- Since when it is searched no more, though its vectors are there.
    ADD COLUMN IF NOT EXISTS ended_at    timestamptz;

-- Of a set, two models of one number of dimensions share a column.
DROP INDEX IF EXISTS vecferry.model_active, vecferry.model_column;
CREATE UNIQUE INDEX model_active ON vecferry.model (table_schema, table_name, content) WHERE state = 'active' AND set_id IS NULL;
CREATE UNIQUE INDEX model_column ON vecferry.model (table_schema, table_name, column_name)
    WHERE state <> 'retired' AND set_id IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS model_set_active ON vecferry.model (set_id) WHERE state = 'active';
CREATE UNIQUE INDEX IF NOT EXISTS model_set_name ON vecferry.model (set_id, name) WHERE state <> 'retired';

-- How many vectors each model has: their sum is the number. Whoever writes adds a row and waits for nobody.
CREATE TABLE IF NOT EXISTS vecferry.coverage (
    set_id  bigint NOT NULL,
    -- 0: chunks that say something.
    model   bigint NOT NULL,
    -- Whether it counts the chunks that the model refuses.
    refused boolean NOT NULL DEFAULT false,
    change  bigint NOT NULL
);

-- Makes one row of many. Others skip what is being folded, and see it as it was.
CREATE OR REPLACE FUNCTION vecferry.fold_coverage(of_set bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH several AS (
        DELETE FROM vecferry.coverage WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM vecferry.coverage WHERE set_id = of_set LIMIT 2000 FOR UPDATE SKIP LOCKED))
        RETURNING model, refused, change
    )
    INSERT INTO vecferry.coverage (set_id, model, refused, change)
    SELECT of_set, model, refused, sum(change) FROM several GROUP BY model, refused;
$$;
REVOKE ALL ON FUNCTION vecferry.fold_coverage(bigint) FROM PUBLIC;

-- What the triggers of a set's tables call, with its number and which of the two columns of vecferry.model_tables tells what is
-- counted. SECURITY DEFINER: who writes to the tables need have no rights in the schema vecferry.
CREATE OR REPLACE FUNCTION vecferry.count_coverage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_set  bigint := TG_ARGV[0];
    counts  text;
    came    text := CASE TG_LEVEL WHEN 'ROW' THEN '(SELECT ($1).*)' ELSE 'came' END;
    went    text := CASE TG_LEVEL WHEN 'ROW' THEN '(SELECT ($2).*)' ELSE 'went' END;
    changes text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO vecferry.coverage (set_id, model, refused, change)
        SELECT of_set, c.model, c.refused, -sum(c.change) FROM vecferry.coverage c
        WHERE c.set_id = of_set AND (c.model IN (
            SELECT m.model FROM vecferry.model m
            WHERE m.set_id = of_set AND (m.place_schema, m.place_name) = (TG_TABLE_SCHEMA, TG_TABLE_NAME))
            OR c.model = 0 AND TG_ARGV[1] = 'chunk')
        GROUP BY c.model, c.refused;
        RETURN NULL;
    END IF;
    SELECT CASE TG_ARGV[1] WHEN 'chunk' THEN counts_of_chunk ELSE counts_of_embedding END INTO counts
    FROM vecferry.model_tables WHERE set_id = of_set;
    IF counts IS NULL THEN
        RETURN NULL;
    END IF;
    changes := concat_ws(' UNION ALL ',
        CASE WHEN TG_OP <> 'DELETE' THEN format('SELECT number, 1 AS change FROM %s AS r, LATERAL (VALUES %s) AS c (number)', came, counts) END,
        CASE WHEN TG_OP <> 'INSERT' THEN format('SELECT number, -1 AS change FROM %s AS r, LATERAL (VALUES %s) AS c (number)', went, counts) END);
    changes := format('INSERT INTO vecferry.coverage (set_id, model, change) SELECT %s, number, sum(change) FROM (%s) AS changes '
        'WHERE number IS NOT NULL GROUP BY number HAVING sum(change) <> 0', of_set, changes);
    IF TG_LEVEL = 'ROW' THEN
        EXECUTE changes USING NEW, OLD;
    ELSE
        EXECUTE changes;
    END IF;
    -- One in fifty tidies up. Not where the writer's transaction could fail by it: to see one snapshot, others must not change a row.
    IF random() < 0.02 AND current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM vecferry.fold_coverage(of_set);
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION vecferry.count_coverage() FROM PUBLIC;

-- For people: what each model has, by the counters. SELECT * FROM vecferry.embeddings_by_model;
CREATE OR REPLACE VIEW vecferry.embeddings_by_model AS
SELECT m.chunks_schema, m.chunks_table, o.name AS model, o.dimensions, o.state, o.ended_at,
       coalesce(sum(c.change) FILTER (WHERE c.model = o.model AND NOT c.refused), 0)::bigint AS embeddings,
       coalesce(sum(c.change) FILTER (WHERE c.model = o.model AND c.refused), 0)::bigint AS refused,
       coalesce(sum(c.change) FILTER (WHERE c.model = 0), 0)::bigint AS chunks
FROM vecferry.model_tables m JOIN vecferry.model o USING (set_id)
LEFT JOIN vecferry.coverage c ON c.set_id = m.set_id AND c.model IN (0, o.model)
WHERE o.state <> 'retired'
GROUP BY m.set_id, o.model ORDER BY m.set_id, o.model;

-- Which columns there are, of how many dimensions, and who shares them.
CREATE OR REPLACE VIEW vecferry.embedding_dimensions AS
SELECT place_schema AS table_schema, place_name AS table_name, column_name, dimensions,
       array_agg(name ORDER BY model) AS models
FROM vecferry.model WHERE set_id IS NOT NULL AND state <> 'retired'
GROUP BY place_schema, place_name, column_name, dimensions ORDER BY 1, 2, 4;

-- The indexes of vectors, whether they can be used, and how large they are.
CREATE OR REPLACE VIEW vecferry.embedding_indexes AS
SELECT p.place_schema AS table_schema, p.place_name AS table_name, c.relname AS index,
       pg_get_indexdef(i.indexrelid, 1, true) AS indexed, pg_get_expr(i.indpred, i.indrelid) AS only_where, i.indisvalid AS valid,
       pg_relation_size(i.indexrelid) AS bytes
FROM (SELECT DISTINCT place_schema, place_name FROM vecferry.model WHERE set_id IS NOT NULL AND state <> 'retired') AS p
JOIN pg_index i ON i.indrelid = to_regclass(format('%I.%I', p.place_schema, p.place_name))
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname IN ('hnsw', 'ivfflat')
ORDER BY 1, 2, 3;
