-- psql "$DATABASE_URL" -f sql/expand_note_change.sql
-- What the triggers of a live table call: it notes which row changed, by the key expression and in the queue they name.
-- SECURITY DEFINER: who writes to the table need have no rights in the schema vecferry.
CREATE OR REPLACE FUNCTION vecferry.note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text;
    after  text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('INSERT INTO vecferry.%I (id) VALUES (NULL)', TG_ARGV[0]);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE 'SELECT ' || TG_ARGV[1] INTO before USING OLD;
        EXECUTE format('INSERT INTO vecferry.%I (id) VALUES ($1)', TG_ARGV[0]) USING before;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE 'SELECT ' || TG_ARGV[1] INTO after USING NEW;
        IF after IS DISTINCT FROM before THEN
            EXECUTE format('INSERT INTO vecferry.%I (id) VALUES ($1)', TG_ARGV[0]) USING after;
        END IF;
    END IF;
    RETURN NULL;
END
$$;
-- It runs what its triggers' arguments say with the rights of its owner: others must make no triggers of it. The
-- triggers that are there fire for everybody all the same.
REVOKE ALL ON FUNCTION vecferry.note_change() FROM PUBLIC;

-- What a trigger calls that takes a vector which is handed over: it writes it beside the table, under the row's key as it is by then,
-- and notes the row, so that catching up holds the vector against the model's own. What the row says was not embedded here.
CREATE OR REPLACE FUNCTION vecferry.write_beside() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    handed text := nullif(substring(current_setting('vecferry.handed') FROM '[^:]*$'), '');
BEGIN
    PERFORM set_config('vecferry.handed', '', true);
    EXECUTE format('INSERT INTO vecferry.%1$I AS s (%2$s, content_hash, embedding) SELECT %3$s, ''''::bytea, $2::%4$s '
        'ON CONFLICT (%2$s) DO UPDATE SET embedding = excluded.embedding, refused = NULL',
        TG_ARGV[0], TG_ARGV[1], TG_ARGV[2], TG_ARGV[3]) USING NEW, handed;
    EXECUTE format('INSERT INTO vecferry.%I (id) SELECT %s', TG_ARGV[4], TG_ARGV[5]) USING NEW;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION vecferry.write_beside() FROM PUBLIC;

-- What a key reads as for vecferry, whatever the writer's session has set: of types whose text depends on that.
CREATE OR REPLACE FUNCTION vecferry.key_text(value anyelement) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex' AS $$
BEGIN
    RETURN value::text;
END
$$;
