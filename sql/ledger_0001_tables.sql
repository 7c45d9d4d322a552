-- psql "$DATABASE_URL" -c "CREATE SCHEMA IF NOT EXISTS vecferry" -f sql/ledger_0001_tables.sql
-- What is done, per run, stage and batch. Batches commit in the transaction of the rows they wrote.
CREATE TABLE IF NOT EXISTS vecferry.run (
    run_id      text PRIMARY KEY,
    flow        text NOT NULL,
    plan        jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'planned'
                CHECK (state IN ('planned', 'running', 'failed', 'verified', 'cut_over', 'rolled_back', 'contracted')),
    error       text,
    exit_status integer NOT NULL DEFAULT 1,
    stop        text,
    report      text,
    -- What was spent on vectors, in all starts of the run.
    requests    bigint NOT NULL DEFAULT 0,
    tokens      bigint NOT NULL DEFAULT 0,
    dollars     double precision NOT NULL DEFAULT 0,
    bought      bigint NOT NULL DEFAULT 0,
    reused      bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    cut_over_at timestamptz
);

CREATE TABLE IF NOT EXISTS vecferry.batch (
    run_id      text NOT NULL REFERENCES vecferry.run ON DELETE CASCADE,
    stage       text NOT NULL,
    batch       integer NOT NULL,
    status      text NOT NULL CHECK (status IN ('pending', 'done', 'failed')),
    attempts    integer NOT NULL DEFAULT 0,
    rows        bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    error       text,
    seconds     double precision NOT NULL DEFAULT 0,
    detail      jsonb NOT NULL DEFAULT '{}',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, stage, batch)
);

-- The tables that are ours: what they hold, and which run made them. Renames happen in the same transaction.
CREATE TABLE IF NOT EXISTS vecferry.relation (
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    run_id       text NOT NULL REFERENCES vecferry.run,
    target       integer NOT NULL,
    role         text NOT NULL CHECK (role IN ('shadow', 'live', 'previous')),
    source       jsonb NOT NULL,
    space        text NOT NULL,
    stepped_aside_for        text,
    stepped_aside_for_target integer,
    PRIMARY KEY (table_schema, table_name)
);

-- What a sync of a live table replaced or removed, so that it can be taken back.
CREATE TABLE IF NOT EXISTS vecferry.undo (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      text NOT NULL REFERENCES vecferry.run ON DELETE CASCADE,
    target      integer NOT NULL,
    id          text NOT NULL,
    present     boolean NOT NULL,
    document    text,
    metadata    jsonb,
    uri         text,
    embedding   text,
    content_hash bytea
);
CREATE INDEX IF NOT EXISTS undo_run ON vecferry.undo (run_id, target, id);

-- Where a vector that was paid for lies in VECFERRY_HOME/vectors.
CREATE TABLE IF NOT EXISTS vecferry.vector (
    space    text NOT NULL,
    content  bytea NOT NULL,
    segment  text NOT NULL,
    position integer NOT NULL,
    PRIMARY KEY (content, space)
);

-- For people: one line a run and stage. SELECT * FROM vecferry.status;
CREATE OR REPLACE VIEW vecferry.status AS
SELECT r.run_id, r.flow, r.state, b.stage,
       count(*) FILTER (WHERE b.status = 'done')    AS done,
       count(*) FILTER (WHERE b.status = 'pending') AS pending,
       count(*) FILTER (WHERE b.status = 'failed')  AS failed,
       sum(b.rows)        AS rows,
       sum(b.quarantined) AS quarantined,
       sum(b.seconds)     AS seconds,
       (array_agg(b.error ORDER BY b.updated_at DESC) FILTER (WHERE b.status = 'failed'))[1] AS last_error,
       max(b.updated_at)  AS updated_at
FROM vecferry.run r LEFT JOIN vecferry.batch b USING (run_id)
GROUP BY r.run_id, r.flow, r.state, b.stage
ORDER BY max(r.created_at), min(b.updated_at);
