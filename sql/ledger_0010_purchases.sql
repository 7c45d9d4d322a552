-- psql "$DATABASE_URL" -1 -f sql/ledger_0010_purchases.sql
-- Version 10: what was spent on vectors outside of runs, by day, so that a budget may be one of a day.
CREATE TABLE IF NOT EXISTS vecferry.purchase (
    -- Of UTC.
    day      date NOT NULL,
    -- serve, ingest, search or client.
    buyer    text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    tokens   bigint NOT NULL DEFAULT 0,
    dollars  double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (day, buyer)
);
