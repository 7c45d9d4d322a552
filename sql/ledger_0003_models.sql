-- psql "$DATABASE_URL" -1 -f sql/ledger_0003_models.sql
-- Version 3: the registry of models, and what versions 1 and 2 knew of them.
-- Which vectors of a live table there are. At most one model is active for a table and what of a row is embedded.
CREATE TABLE IF NOT EXISTS vecferry.model (
    model        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    -- What of a row is embedded: the template of its text.
    content      text NOT NULL,
    -- Where a search finds them: the live table, or the view of the table that lies beside it.
    place_schema text NOT NULL,
    place_name   text NOT NULL,
    column_name  text NOT NULL,
    -- Null where the column takes any.
    dimensions   integer,
    metric       text NOT NULL,
    -- Empty where nobody knows it.
    space        text NOT NULL,
    -- building: claimed by a run that has not finished them. retired: dropped by a contract.
    state        text NOT NULL CHECK (state IN ('building', 'built', 'active', 'retired')),
    -- Null for the vectors that the table came with.
    run_id       text REFERENCES vecferry.run ON DELETE CASCADE,
    target       integer,
    -- The model that its run was planned from, and the one that was active before it: that, a rollback makes active again.
    planned_from bigint REFERENCES vecferry.model ON DELETE SET NULL,
    took_over_from bigint REFERENCES vecferry.model ON DELETE SET NULL,
    switched_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS model_active ON vecferry.model (table_schema, table_name, content) WHERE state = 'active';
CREATE UNIQUE INDEX IF NOT EXISTS model_column ON vecferry.model (table_schema, table_name, column_name) WHERE state <> 'retired';
CREATE UNIQUE INDEX IF NOT EXISTS model_run ON vecferry.model (run_id, target);

-- Which function, in the schema of the live table, searches a model for those who call another one.
CREATE TABLE IF NOT EXISTS vecferry.search_function (
    model    bigint NOT NULL REFERENCES vecferry.model ON DELETE CASCADE,
    function text NOT NULL,
    body     text NOT NULL,
    -- Whether it is what the application's own function was: after the last rollback that is what it says again.
    own      boolean NOT NULL,
    PRIMARY KEY (model, function)
);

DO $$
DECLARE
    path text := current_setting('search_path');
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('vecferry.active_space')) IS DISTINCT FROM 'r' THEN
        RETURN;  -- nothing was switched before, or this has been done
    END IF;
    -- The views of others that read it, as they are written without a search path, to be put on what takes its place.
    PERFORM set_config('search_path', '', true);
    CREATE TABLE vecferry.view_before AS
    SELECT DISTINCT c.oid::regclass AS name, pg_get_viewdef(c.oid) AS definition, c.reloptions AS options
    FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = 'vecferry.active_space'::regclass;
    PERFORM set_config('search_path', path, true);
    ALTER TABLE vecferry.active_space RENAME TO active_space_until_version_3;
END
$$;

CREATE OR REPLACE VIEW vecferry.active_space AS
SELECT table_schema, table_name, column_name, coalesce(dimensions, 0) AS dimensions, space, run_id, switched_at
FROM vecferry.model WHERE state = 'active';

DO $$
DECLARE
    reader record;
    other record;
    reason text;
    message text;
BEGIN
    IF EXISTS (SELECT FROM vecferry.model) OR to_regclass('vecferry.active_space_until_version_3') IS NULL
        AND NOT EXISTS (SELECT FROM vecferry.relation WHERE source ? 'table') THEN
        RETURN;
    END IF;
    CREATE TABLE vecferry.active_before (table_schema text, table_name text, column_name text, dimensions integer, space text,
                                run_id text, switched_at timestamptz);
    IF to_regclass('vecferry.active_space_until_version_3') IS NOT NULL THEN
        INSERT INTO vecferry.active_before SELECT table_schema, table_name, column_name, nullif(dimensions, 0), space, run_id, switched_at
        FROM vecferry.active_space_until_version_3;
    END IF;

    CREATE TABLE vecferry.made_before AS
    SELECT r.table_name AS shadow, r.run_id, r.target, r.space, run.state, run.created_at, run.cut_over_at,
           t ->> 'schema' AS table_schema, t ->> 'table' AS table_name, t -> 'live' ->> 'text' AS content,
           t ->> 'mode' = 'side_table' AS beside, t ->> 'new_column' AS column_name, t ->> 'function' AS function,
           (t ->> 'dimensions')::integer AS dimensions, t -> 'live' -> 'layout' ->> 'metric' AS metric,
           t -> 'live' ->> 'vectors' AS old_column, (t -> 'live' -> 'layout' ->> 'dimensions')::integer AS old_dimensions,
           t ->> 'old_space' AS old_space,
           EXISTS (SELECT FROM vecferry.batch b WHERE b.run_id = r.run_id AND b.stage = 'index' AND b.batch = r.target
                   AND b.status = 'done') AS built
    FROM vecferry.relation r JOIN vecferry.run USING (run_id), jsonb_array_elements(run.plan -> 'targets') t
    WHERE r.source ? 'table' AND (t ->> 'number')::integer = r.target;

    -- What the tables came with: the old columns that are still there.
    INSERT INTO vecferry.model (table_schema, table_name, content, place_schema, place_name, column_name, dimensions, metric,
                                space, state, switched_at)
    SELECT DISTINCT ON (m.table_schema, m.table_name, m.old_column) m.table_schema, m.table_name, m.content,
           m.table_schema, m.table_name, m.old_column, m.old_dimensions, m.metric,
           CASE WHEN s.column_name = m.old_column THEN s.space ELSE coalesce(m.old_space, '') END,
           'built', coalesce(s.switched_at, m.created_at)
    FROM vecferry.made_before m
    JOIN pg_attribute a ON a.attrelid = to_regclass(format('%I.%I', m.table_schema, m.table_name)) AND a.attname = m.old_column
        AND NOT a.attisdropped
    LEFT JOIN vecferry.active_before s ON (s.table_schema, s.table_name) = (m.table_schema, m.table_name)
    WHERE NOT EXISTS (SELECT FROM vecferry.made_before o WHERE (o.table_schema, o.table_name, o.column_name)
                      = (m.table_schema, m.table_name, m.old_column))
    ORDER BY m.table_schema, m.table_name, m.old_column, m.created_at, m.target;

    -- What runs made.
    INSERT INTO vecferry.model (table_schema, table_name, content, place_schema, place_name, column_name, dimensions, metric,
                                space, state, run_id, target, switched_at)
    SELECT m.table_schema, m.table_name, m.content, CASE WHEN beside THEN 'vecferry' ELSE m.table_schema END,
           CASE WHEN beside THEN m.shadow || '_rows' ELSE m.table_name END, m.column_name, m.dimensions, m.metric, m.space,
           CASE WHEN s.column_name IS NOT NULL THEN 'active' WHEN built THEN 'built' ELSE 'building' END, m.run_id, m.target,
           coalesce(s.switched_at, m.created_at)
    FROM vecferry.made_before m
    LEFT JOIN vecferry.active_before s ON (s.table_schema, s.table_name, s.column_name) = (m.table_schema, m.table_name, m.column_name)
    ORDER BY m.created_at;

    -- Which of them are searched. Of a table that was never switched, the old column that was named last.
    UPDATE vecferry.model SET state = 'active' FROM vecferry.active_before s
    WHERE (s.table_schema, s.table_name, s.column_name) = (model.table_schema, model.table_name, model.column_name)
      AND model.run_id IS NULL AND model.state = 'built';
    UPDATE vecferry.model SET state = 'active' WHERE model IN (
        SELECT DISTINCT ON (o.table_schema, o.table_name, o.content) o.model
        FROM vecferry.model o JOIN vecferry.made_before m
             ON (m.table_schema, m.table_name, m.old_column) = (o.table_schema, o.table_name, o.column_name)
        WHERE o.run_id IS NULL
          AND NOT EXISTS (SELECT FROM vecferry.active_before s WHERE (s.table_schema, s.table_name) = (o.table_schema, o.table_name))
        ORDER BY o.table_schema, o.table_name, o.content, m.created_at DESC);

    -- What was said of tables of which no run is left: a run was rolled back, and dropped.
    INSERT INTO vecferry.model (table_schema, table_name, content, place_schema, place_name, column_name, dimensions, metric,
                                space, state, switched_at)
    SELECT s.table_schema, s.table_name, coalesce(p.content, ''), s.table_schema, s.table_name, s.column_name, s.dimensions,
           coalesce(p.metric, 'cosine'), s.space, 'active', s.switched_at
    FROM vecferry.active_before s
    LEFT JOIN LATERAL (
        SELECT t -> 'live' ->> 'text' AS content, t -> 'live' -> 'layout' ->> 'metric' AS metric
        FROM vecferry.run, jsonb_array_elements(run.plan -> 'targets') t
        WHERE t ->> 'schema' = s.table_schema AND t ->> 'table' = s.table_name AND t ? 'live'
        ORDER BY run.created_at DESC LIMIT 1) p ON true
    WHERE NOT EXISTS (SELECT FROM vecferry.model m WHERE (m.table_schema, m.table_name) = (s.table_schema, s.table_name)
                      AND m.state = 'active');

    -- A switched table had one line, that of its last switch: other texts of it may have been switched before.
    UPDATE vecferry.model SET state = 'active' WHERE model IN (
        SELECT DISTINCT ON (o.table_schema, o.table_name, o.content) o.model
        FROM vecferry.model o JOIN vecferry.made_before m ON (m.run_id, m.target) = (o.run_id, o.target)
        WHERE m.state IN ('cut_over', 'contracted')
          AND NOT EXISTS (SELECT FROM vecferry.model a WHERE (a.table_schema, a.table_name, a.content)
                          = (o.table_schema, o.table_name, o.content) AND a.state = 'active')
          AND NOT EXISTS (SELECT FROM vecferry.made_before l WHERE (l.table_schema, l.table_name, l.old_column)
                          = (o.table_schema, o.table_name, o.column_name) AND l.state IN ('cut_over', 'contracted'))
        ORDER BY o.table_schema, o.table_name, o.content, m.cut_over_at DESC, o.target DESC);

    UPDATE vecferry.model SET planned_from = o.model,
           took_over_from = CASE WHEN m.state = 'cut_over' THEN o.model END
    FROM vecferry.made_before m, vecferry.model o
    WHERE (m.run_id, m.target) = (model.run_id, model.target)
      AND (o.table_schema, o.table_name, o.column_name) = (m.table_schema, m.table_name, m.old_column);

    -- Both names by which they were searched: one for the new vectors, and once switched one for the old ones.
    INSERT INTO vecferry.search_function (model, function, body, own)
    SELECT model.model, m.function, m.function || '_v2', false
    FROM vecferry.made_before m JOIN vecferry.model ON (m.run_id, m.target) = (model.run_id, model.target)
    JOIN pg_proc p ON p.pronamespace = to_regnamespace(quote_ident(m.table_schema)) AND p.proname = m.function || '_v2'
    WHERE obj_description(p.oid, 'pg_proc')
          = format('Made by vecferry: the nearest rows by %s.%s.%s', m.table_schema, m.table_name, m.column_name)
    ON CONFLICT DO NOTHING;
    INSERT INTO vecferry.search_function (model, function, body, own)
    SELECT DISTINCT ON (o.model, m.function) o.model, m.function, p.proname, true
    FROM vecferry.made_before m JOIN vecferry.model o ON o.run_id IS NULL
         AND (o.table_schema, o.table_name, o.column_name) = (m.table_schema, m.table_name, m.old_column)
    JOIN pg_proc p ON p.pronamespace = to_regnamespace(quote_ident(m.table_schema))
    JOIN pg_proc called ON called.pronamespace = p.pronamespace AND called.proname = m.function
    WHERE p.proname = m.function
       OR p.proname = m.function || '_v1' AND m.state = 'cut_over' AND strpos(called.prosrc, format('"%s_v1"(', m.function)) > 0
    ORDER BY o.model, m.function, p.proname DESC  -- _v1 where the function calls it: what it was before the switch
    ON CONFLICT DO NOTHING;

    IF to_regclass('vecferry.active_space_until_version_3') IS NOT NULL THEN
        FOR reader IN
            SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS name,
                   g.privilege_type AS what, CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS further
            FROM pg_class c, aclexplode(c.relacl) AS g
            WHERE c.oid = 'vecferry.active_space_until_version_3'::regclass AND g.grantee <> c.relowner
              AND g.privilege_type = 'SELECT'
        LOOP
            EXECUTE format('GRANT %s ON vecferry.active_space TO %s%s', reader.what, reader.name, reader.further);
        END LOOP;
        BEGIN
            -- Replaced in place, a view keeps its owner, its rights and the views that read it.
            FOR other IN SELECT * FROM vecferry.view_before LOOP
                EXECUTE format('CREATE OR REPLACE VIEW %s%s AS %s', other.name,
                               ' WITH (' || array_to_string(other.options, ', ') || ')', other.definition);
            END LOOP;
            DROP TABLE vecferry.active_space_until_version_3, vecferry.view_before;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL, message = MESSAGE_TEXT;
            RAISE EXCEPTION 'vecferry.active_space becomes a view, and what reads it cannot be moved to it: %',
                replace(coalesce(nullif(reason, ''), message), '_until_version_3', '')
                USING HINT = 'drop what reads it, run this command again, and create it again';
        END;
    END IF;
    DROP TABLE vecferry.active_before, vecferry.made_before;
END
$$;
