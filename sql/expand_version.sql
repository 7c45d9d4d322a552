-- psql "$DATABASE_URL" -f sql/expand_version.sql
-- Which files ledger_NNNN_*.sql the ledger consists of. Who runs one of them by hand adds its row by hand.
CREATE TABLE IF NOT EXISTS vecferry.version (
    version    integer PRIMARY KEY,
    step       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    -- The version of vecferry; NULL where the step was there before versions were noted.
    applied_by text
);
-- Whoever may look into the schema may know which version it has; its data stay his who was granted them.
GRANT SELECT ON vecferry.version TO PUBLIC;
