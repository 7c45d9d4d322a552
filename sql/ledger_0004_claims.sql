-- psql "$DATABASE_URL" -f sql/ledger_0004_claims.sql
-- Who buys which content now. Nothing of it outlives a restart of the server, and nothing needs to: no session does.
CREATE UNLOGGED TABLE IF NOT EXISTS vecferry.claim (
    space   text NOT NULL,
    content bytea NOT NULL,
    -- The backend that buys it. It holds the advisory lock (7863293, owner) as long as its claims hold.
    owner   integer NOT NULL,
    PRIMARY KEY (content, space)
);

-- Claims for this session what nobody who lives has claimed; returns what is to be bought. What has been kept since the
-- caller looked is not. Each statement sees what others have committed by then; contents are taken in one order.
CREATE OR REPLACE FUNCTION vecferry.claim_contents(of_space text, wanted bytea[]) RETURNS SETOF bytea
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND classid = 7863293) THEN
        PERFORM pg_advisory_lock(7863293, pg_backend_pid());
        -- A machine that is gone says nothing: the session of one that does not answer ends in half a minute, not in hours.
        PERFORM set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),
                set_config('tcp_keepalives_count', '3', false);
    END IF;
    DELETE FROM vecferry.claim WHERE space = of_space AND content IN (
        SELECT c.content FROM vecferry.claim c
        WHERE c.space = of_space AND c.content = ANY (wanted) AND NOT EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 7863293
              AND l.objid = c.owner::oid
              AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
        FOR UPDATE OF c SKIP LOCKED);
    INSERT INTO vecferry.claim (space, content, owner)
    SELECT of_space, w, pg_backend_pid() FROM unnest(wanted) AS w ORDER BY w
    ON CONFLICT DO NOTHING;
    RETURN QUERY
    SELECT c.content FROM vecferry.claim c
    WHERE c.space = of_space AND c.content = ANY (wanted) AND c.owner = pg_backend_pid()
      AND NOT EXISTS (SELECT FROM vecferry.vector v WHERE v.content = c.content AND v.space = of_space);
END
$$;

-- Gives back all that this session has claimed.
CREATE OR REPLACE FUNCTION vecferry.release_contents() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM vecferry.claim WHERE owner = pg_backend_pid();
    PERFORM pg_advisory_unlock(7863293, pg_backend_pid());
END
$$;
