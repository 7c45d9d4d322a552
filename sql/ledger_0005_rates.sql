-- psql "$DATABASE_URL" -f sql/ledger_0005_rates.sql
-- How much of an account's rate limits its processes have taken. Nothing of it needs to outlive a restart of the server: two
-- minutes without a request, and all of an account's limits are there again.
CREATE UNLOGGED TABLE IF NOT EXISTS vecferry.rate (
    -- A digest of server, key and model.
    account text PRIMARY KEY,
    state   text NOT NULL,
    -- Whoever writes says which version it has read: of two that have read the same one, the second reads again.
    version bigint NOT NULL
) WITH (fillfactor = 10);
